"""The chat screen: the conversation and the composer below it.

In: a `Talk`, whose listener it is. Out: its messages on the screen, each control made once and kept as long as its
message stays the same. This file does not know how answers are made, where pictures come from (bring.py), nor what else
is done with a message (doing.py) or with the whole conversation (menu.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

import flet as ft

from impchat import images, settings
from impchat.messages import Message
from impchat.servers import Server
from impchat_mobile import looks
from impchat_mobile.shell import Screen, Shell
from impchat_mobile.talk import Talk
from impchat_mobile.views import bubbles, menu
from impchat_mobile.views.bring import Bring
from impchat_mobile.views.bubbles import Answered
from impchat_mobile.views.composer import Composer
from impchat_mobile.views.doing import Doing
from impchat_mobile.views.tail import Tail
from impchat_mobile.views.welcome import Welcome


class ChatScreen(Screen):
    """`go` opens the other screens; it is given by whoever knows them."""

    def __init__(self, shell: Shell, talk: Talk, go: Any) -> None:
        self._shell = shell
        self.talk = talk
        self._go = go
        self._bring = Bring(shell, talk, go)
        self._doing = Doing(shell, talk, go, self._edit, self._again, self._bring.part)
        self._kept: dict[str, tuple[Any, ft.Control]] = {}  # message -> what its control was made of, and the control
        self._grows: Answered | None = None
        self._all = False  # whether earlier messages were asked for
        self._drawing = asyncio.Lock()
        self._editing: str | None = None
        self._saving: asyncio.Task[None] | None = None

    # Drawing

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self.talk.listener = self
        self._kept.clear()
        self._title = ft.Text("", size=17, weight=ft.FontWeight.W_600, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
        self._where = ft.Text("", size=12, color=looks.FAINT, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
        self._tail = Tail(shell, self._to_end)
        self._welcome = Welcome(shell, self._bring.sample, self._take_ask, self._go.models)
        self._chips = ft.Row(spacing=8, scroll=ft.ScrollMode.HIDDEN)
        self._chips_line = ft.Container(
            self._chips, padding=ft.Padding.only(left=12, right=12, bottom=8), visible=False
        )
        self._edit_line = ft.Container(
            ft.Row(
                [
                    ft.Icon(ft.Icons.EDIT_OUTLINED, size=18, color=looks.FAINT),
                    looks.faint(say("mobile.editing"), size=13, expand=True),
                    looks.small(ft.Icons.CLOSE_ROUNDED, say("mobile.cancel"), shell.on(self._stop_editing)),
                ]
            ),
            padding=ft.Padding.only(left=20, right=12),
            visible=False,
        )
        typed = self.composer.text if hasattr(self, "composer") else ""
        self.composer = Composer(
            shell,
            send=self._send,
            stop=self.talk.stop,
            typed=self._typed,
            camera=self._bring.camera,
            gallery=self._bring.gallery,
            more=self._bring.more_ways,
            pasted=self._bring.attach,
            open_picture=self._bring.retouch,
            detach=self.talk.detach,
            gauge=lambda: menu.context(shell, self.talk, self._go, self.new),
        )
        self.composer.field.value = typed
        page = ft.Column(
            [self._welcome.control, self._tail.control, self._chips_line, self._edit_line, self.composer.control],
            spacing=0,
            expand=True,
        )
        self._side = ft.Container(width=looks.SIDE, bgcolor=ft.Colors.SURFACE_CONTAINER)
        self._chats = looks.button(ft.Icons.MENU_ROUNDED, say("mobile.chats"), shell.on(self._open_drawer))
        more = shell.on(lambda: menu.conversation(shell, self.talk, self._go))
        self._drawer = ft.NavigationDrawer([], bgcolor=ft.Colors.SURFACE_CONTAINER_LOW)
        self._view = ft.View(
            [
                ft.SafeArea(
                    ft.Row([self._side, looks.column(page, expand=True)], spacing=0, expand=True,
                           vertical_alignment=ft.CrossAxisAlignment.STRETCH),
                    expand=True,
                    maintain_bottom_view_padding=True,
                )
            ],
            padding=0,
            spacing=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=ft.AppBar(
                automatically_imply_leading=False,
                title=ft.Container(
                    ft.Column([self._title, self._where], spacing=0, tight=True),
                    on_click=shell.on(self._go.place),
                    tooltip=say("mobile.place_change"),
                    padding=ft.Padding.symmetric(horizontal=8, vertical=4),
                    border_radius=12,
                    ink=True,
                ),
                title_spacing=0,
                bgcolor=ft.Colors.SURFACE,
                actions=[
                    looks.button(ft.Icons.EDIT_SQUARE, say("chat.new"), shell.on(self.new)),
                    looks.button(ft.Icons.MORE_VERT_ROUNDED, say("mobile.more"), more),
                ],
            ),
        )  # fmt: skip
        self._lay_out()
        return self._view

    def _lay_out(self) -> None:
        """The list of chats beside the chat, or in a drawer."""
        wide, bar = self._shell.wide, self._view.appbar
        assert isinstance(bar, ft.AppBar)
        self._side.visible = wide
        self._view.drawer = None if wide else self._drawer
        bar.leading, bar.title_spacing = (None, 12) if wide else (self._chats, 0)
        self._go.history.attach(self, self._drawer, self._side)

    async def shown(self) -> None:
        await self._draw()
        await self._draw_draft()

    def resized(self) -> None:
        if self._side.visible != self._shell.wide:
            self._lay_out()
            self._shell.page.update()
            self._shell.start(self._go.history.refresh())
        self._tail.grew()

    # What the talk tells

    def changed(self) -> None:
        self._shell.start(self._draw())

    def grew(self) -> None:
        if self._grows and self.talk.growing:
            self._grows.grow(self.talk.growing)
            self._tail.grew()

    def drafted(self) -> None:
        self._shell.start(self._draw_draft())

    async def _draw(self) -> None:
        """Bring the list in line with the talk."""
        async with self._drawing:
            talk, shell = self.talk, self._shell
            messages = talk.messages
            hidden = 0 if self._all else max(0, len(messages) - settings.MOBILE_MESSAGES)
            shown = messages[hidden:]
            names = {name for message in shown for name in message.images}
            small = await asyncio.to_thread(shell.thumbnails.all, names)
            boxed = await asyncio.to_thread(self._boxed, shown)
            if talk.messages is not messages:  # a newer drawing follows
                return
            kept: dict[str, tuple[Any, ft.Control]] = {}
            self._grows = None
            for place, message in enumerate(shown, hidden):
                last = place >= len(messages) - 1
                made_of = (message, talk.versions.get(message.uuid), last, len(names & small.keys()))
                before = self._kept.get(message.uuid)
                if before and before[0] == made_of and message.state != "streaming":
                    kept[message.uuid] = before
                else:
                    kept[message.uuid] = made_of, self._message(message, small, boxed.get(message.uuid), last)
            self._kept = kept
            controls = [control for _, control in kept.values()]
            if hidden:
                earlier = ft.TextButton(
                    shell.say("mobile.earlier", count=hidden), on_click=shell.on(self._show_earlier)
                )
                controls.insert(0, ft.Row([earlier], alignment=ft.MainAxisAlignment.CENTER))
            self._tail.list.controls = controls
            self._tail.control.visible = bool(messages)
            self._welcome.show(not messages, shell.app.demo and not talk.server, self._go.server_name())
            self._title.value = talk.title or shell.say("chat.untitled")
            self._where.value = self._go.where()
            self.composer.show_answering(talk.growing is not None)
            self.composer.show_gauge(talk.context_used)
            self._show_chips()
            shell.page.update()
            if self._grows and talk.growing:
                self._grows.grow(talk.growing)
            self._tail.grew()
        if self._shell.wide:
            await self._go.history.refresh()

    def _message(self, message: Message, small: dict[str, bytes], boxes: bytes | None, last: bool) -> ft.Control:
        versions = self.talk.versions.get(message.uuid, (message.uuid,))
        which = versions.index(message.uuid) + 1, len(versions)
        if message.role == "user":
            return bubbles.question(self._shell, message, small, which, self._doing)
        answered = Answered(self._shell, message, boxes, which, last, self._doing)
        if message.state == "streaming":
            self._grows = answered
        return answered.control

    def _boxed(self, shown: list[Message]) -> dict[str, bytes]:
        """Answer -> a small picture with its boxes."""
        found = {}
        for message in shown:
            if message.role == "assistant" and (data := self.talk.boxed(message)):
                found[message.uuid] = images.thumbnail(data, 2 * settings.THUMBNAIL_SIDE)
        return found

    async def _draw_draft(self) -> None:
        draft = self.talk.draft
        small = await asyncio.to_thread(self._shell.thumbnails.all, draft.pictures)
        if draft is self.talk.draft:
            self.composer.show_draft(draft, small)
            self._show_chips()
            self._shell.draw(self._chips_line)

    def _show_chips(self) -> None:
        """Questions to try, as soon as there is a picture and nothing is typed."""
        show = bool(self.talk.draft.pictures) and not self.composer.text and not self.talk.growing
        self._chips_line.visible = show
        self._welcome.show_asks(not show)
        if show:
            say = self._shell.say
            asks = [say(f"chat.ask_{number}") for number in range(1, 5)] + [say("mobile.ask_box")]
            self._chips.controls = [
                ft.Container(
                    ft.Text(ask, size=14),
                    padding=ft.Padding.symmetric(horizontal=14, vertical=9),
                    border_radius=18,
                    bgcolor=ft.Colors.SURFACE_CONTAINER_HIGH,
                    ink=True,
                    on_click=self._shell.on(lambda ask=ask: self._send(ask)),
                )
                for ask in asks
            ]

    async def _to_end(self) -> None:
        """Show the latest words."""
        await self._draw()
        self._tail.go()

    async def _show_earlier(self) -> None:
        self._all = True
        await self._draw()

    # Asking

    async def _send(self, text: str) -> None:
        self._stop_saving()
        if self._editing:
            message, self._editing = self._editing, None
            self._edit_line.visible = False
            await self.talk.edit(message, text)
        else:
            await self.talk.send(text)
        if self.composer.text == text:
            self.composer.write("")
        await self._remember()
        await self._to_end()

    def _typed(self, text: str) -> None:
        if self._chips_line.visible == bool(text):
            self._show_chips()
            self._shell.draw(self._chips_line)
        self._stop_saving()
        if not self._editing:
            self._saving = asyncio.get_running_loop().create_task(self._save_later(text))

    async def _save_later(self, text: str) -> None:
        await asyncio.sleep(settings.FLUSH_S)
        await self.talk.keep(text)

    def _stop_saving(self) -> None:
        if self._saving:
            self._saving.cancel()
            self._saving = None

    async def keep(self) -> None:
        """Bring what is typed to the disk, and which conversation is open: the app goes to the background."""
        if not self._editing:
            self._stop_saving()
            await self.talk.keep(self.composer.text)
        await self._remember()

    async def _remember(self) -> None:
        talk, kept = self.talk, self._shell.preferences
        conversation, chosen = talk.conversation or "", dict(kept.servers)
        if conversation and self._go.server_of(conversation) != talk.server:  # it would be forgotten
            chosen[conversation] = talk.server.id if talk.server else ""
        if (conversation, chosen) != (kept.conversation, kept.servers):
            await self._shell.prefer(conversation=conversation, servers=chosen)

    async def _take_ask(self, text: str) -> None:
        self.composer.write(text)
        await self.composer.focus()

    async def _again(self, message: Message) -> None:
        await self.talk.regenerate(message.uuid)
        await self._to_end()

    async def _edit(self, message: Message) -> None:
        self._editing = message.uuid
        self._edit_line.visible = True
        self._shell.draw(self._edit_line)
        self.composer.write(message.text)
        await self.composer.focus()

    def _stop_editing(self) -> None:
        self._editing = None
        self._edit_line.visible = False
        self._shell.draw(self._edit_line)
        self.composer.write("")

    # The conversation as a whole

    async def new(self) -> None:
        await self.open(None)

    async def open(self, conversation: str | None) -> None:
        """Show this conversation, or a new one."""
        await self.keep()
        self._all = False
        if self._editing:
            self._stop_editing()
        await self.talk.open(conversation, self._go.server_of(conversation))
        self.composer.write(self.talk.text)
        await self._remember()
        if self.talk.messages:
            await self._to_end()

    async def answer_by(self, server: Server | None) -> None:
        """Let another one answer in this conversation; None: the model here."""
        await self.talk.answer_by(server)
        await self._remember()

    async def _open_drawer(self) -> None:
        await self._go.history.show()
