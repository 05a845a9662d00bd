"""The chat screen: the conversation and the composer below it.

In: an `OpenConversation`, whose listener it is. Out: its messages on the screen, each control made once and kept as
long as its message stays the same. This file does not know how answers are made, where pictures come from
(attach_actions.py), nor what else is done with a message (message_actions.py) or with the whole conversation (menu.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import flet as ft

from impchat import images, paths, presentation, settings
from impchat.images import Prepared
from impchat.messages import Message
from impchat.peers.servers import Server
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell
from impchat_mobile.conversation import OpenConversation
from impchat_mobile.guard import Handler
from impchat_mobile.views import bubbles, menu
from impchat_mobile.views.attach_actions import AttachActions
from impchat_mobile.views.bubbles import Answered
from impchat_mobile.views.composer import Composer
from impchat_mobile.views.message_actions import MessageActions
from impchat_mobile.views.message_list import MessageList
from impchat_mobile.views.welcome import Welcome

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator

_LOW = 480  # pixels of height, below which the tools stand beside the field, where that leaves room for words
_LINE = 600  # pixels of width that field and tools beside each other take at least
_LOWER, _LOWEST = 330, 250  # pixels of height, below which there is no room for suggestions, and none for a title
_BAR = 56  # pixels of the title's height


class ChatScreen(Screen):
    """`go` opens the other screens; it is given by whoever knows them."""

    def __init__(self, shell: Shell, talk: OpenConversation, go: Navigator) -> None:
        self._shell = shell
        self.talk = talk
        self._go = go
        self._attach_actions = AttachActions(shell, talk, go, self._notice)
        self._message_actions = MessageActions(shell, talk, go, self._edit, self._again, self._attach_actions.part)
        self._kept: dict[str, tuple[object, ft.Control]] = {}  # message -> what its control is made of, and it
        self._grows: Answered | None = None
        self._all = False  # whether earlier messages were asked for
        self._drawing = asyncio.Lock()
        self._opened = asyncio.Event()  # a conversation is
        self._asking = False  # a question is on its way into the history
        self._height = 800.0  # pixels for the conversation and its title
        self._saving: asyncio.Task[None] | None = None

    # Drawing

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self.talk.listener = self
        self._kept.clear()
        self._title = ft.Text("", size=17, weight=ft.FontWeight.W_600, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
        self._where = ft.Text("", size=12, color=theme.FAINT, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
        self._message_list = MessageList(shell, self._to_end)
        attach = self._attach_actions
        self._welcome = Welcome(shell, attach.sample, self._take_ask, self._go.models)
        self._welcome.control.visible = False  # until it is known that the conversation is empty
        self._chips = ft.Row(spacing=8, scroll=ft.ScrollMode.HIDDEN)
        self._chips_line = ft.Container(
            self._chips, padding=ft.Padding.only(left=12, right=12, bottom=8), visible=False
        )
        self._edit_line = ft.Container(
            ft.Row(
                [
                    ft.Icon(ft.Icons.EDIT_OUTLINED, size=18, color=theme.FAINT),
                    theme.faint(say("mobile.editing"), size=13, expand=True),
                    theme.small(ft.Icons.CLOSE_ROUNDED, say("mobile.cancel"), shell.on(self._leave_edit)),
                ]
            ),
            padding=ft.Padding.only(left=20, right=12),
            visible=False,
        )
        self.composer = Composer(
            shell,
            send=self._send,
            stop=self.talk.stop,
            typed=self._typed,
            camera=self._once_open(attach.camera),
            gallery=self._once_open(attach.gallery),
            more=self._once_open(attach.more_ways),
            pasted=attach.attach_all,
            open_picture=attach.retouch,
            detach=attach.detach,
            gauge=lambda: menu.context(shell, self.talk, self._go, self.new),
        )
        self.composer.write(self.talk.text)
        below = ft.Column(
            [self._chips_line, self._edit_line, self.composer.control],
            spacing=0,
            tight=True,
            on_size_change=shell.on(self._below_grew),
        )
        page = ft.Column([self._welcome.control, self._message_list.control, below], spacing=0, expand=True)
        self._side = ft.Container(width=theme.SIDE, bgcolor=ft.Colors.SURFACE_CONTAINER)
        self._chats = theme.button(ft.Icons.MENU_ROUNDED, say("mobile.chats"), shell.on(self._open_drawer))
        more = shell.on(lambda: menu.conversation(shell, self.talk, self._go))
        self._drawer = ft.NavigationDrawer([], bgcolor=ft.Colors.SURFACE_CONTAINER_LOW)
        self._view = ft.View(
            [
                ft.SafeArea(
                    ft.Row([self._side, theme.column(page, expand=True)], spacing=0, expand=True,
                           vertical_alignment=ft.CrossAxisAlignment.STRETCH),
                    expand=True,
                    maintain_bottom_view_padding=True,
                    on_size_change=shell.on(self._fit),
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
                    theme.button(ft.Icons.EDIT_SQUARE, say("chat.new"), shell.on(self.new)),
                    theme.button(ft.Icons.MORE_VERT_ROUNDED, say("mobile.more"), more),
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

    def _fit(self, event: ft.LayoutSizeChangeEvent[ft.SafeArea]) -> None:
        """The page has another height: a keyboard takes its part of it too."""
        bar = self._view.appbar
        assert isinstance(bar, ft.AppBar)
        self._height = event.height + (_BAR if bar.visible else 0)
        self.composer.lie_low(self._height < _LOW and event.width >= _LINE)
        if bar.visible == (self._height < _LOWEST):
            bar.visible = not bar.visible
            self._shell.page.update()
        self._show_chips()
        self._shell.draw(self._chips_line)
        self._message_list.grew()

    def _below_grew(self, event: ft.LayoutSizeChangeEvent[ft.Column]) -> None:
        self._shell.above = event.height
        self._message_list.grew()

    async def shown(self) -> None:
        self.composer.write(self.talk.text)  # another conversation may be open by now
        await self._draw()
        await self._draw_draft()

    def failed(self, sentence: str) -> bool:
        self._notice(sentence, error=True)
        return True

    def _notice(self, text: str, undo: Handler | None = None, error: bool = False) -> None:
        self.composer.show_notice(text, undo, error)

    def resized(self) -> None:
        if self._side.visible != self._shell.wide:
            self._lay_out()
            self._shell.page.update()
            self._shell.start(self._go.history.refresh())
        self._message_list.grew()

    # What the talk tells

    def changed(self) -> None:
        self._shell.start(self._draw())

    def grew(self) -> None:
        if self._grows and self.talk.growing:
            self._grows.grow(self.talk.growing)
            self._message_list.grew()

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
            kept: dict[str, tuple[object, ft.Control]] = {}
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
            self._message_list.list.controls = controls
            self._message_list.control.visible = bool(messages)
            self._welcome.show(not messages and self._opened.is_set(), talk.demo, self._go.server_name())
            self._title.value = talk.title or shell.say("chat.untitled")
            self._where.value = self._go.where()
            self.composer.show_answering(talk.growing is not None)
            self.composer.show_gauge(talk.context_used)
            self._show_chips()
            shell.page.update()
            self.grew()
        if self._shell.wide:
            await self._go.history.refresh()

    def _message(self, message: Message, small: dict[str, bytes], boxes: bytes | None, last: bool) -> ft.Control:
        versions = self.talk.versions.get(message.uuid, (message.uuid,))
        which = versions.index(message.uuid) + 1, len(versions)
        if message.role == "user":
            return bubbles.question(self._shell, message, small, which, self._message_actions)
        answered = Answered(self._shell, message, boxes, which, last, self._message_actions)
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
        """The pictures of what is being asked. Its words are the field's, which may be ahead of the talk's."""
        talk = self.talk
        draft, small = talk.asked_about, {}
        if draft.pictures:
            small = await asyncio.to_thread(self._small, draft.pictures, talk.editing.new if talk.editing else {})
        if draft == talk.asked_about:
            self._edit_line.visible = talk.editing is not None
            self._shell.draw(self._edit_line)
            self.composer.show_draft(draft, small)
            self._show_chips()
            self._shell.draw(self._chips_line)
            self._where.value = self._go.where()  # a server that reads the picture says more about its model
            self._shell.draw(self._where)

    def _small(self, pictures: Sequence[str], new: Mapping[str, Prepared]) -> dict[str, bytes]:
        """Thumbnails; those of `new` are not in the history yet."""
        found = self._shell.thumbnails.all(name for name in pictures if name not in new)
        return found | {name: images.thumbnail(new[name].data) for name in pictures if name in new}

    def _show_chips(self) -> None:
        """Questions to try, as soon as there is a picture and nothing is typed."""
        talk = self.talk
        show = bool(talk.asked_about.pictures) and not (talk.text or talk.growing or self._height < _LOWER)
        self._chips_line.visible = show
        self._welcome.show_asks(not show)
        if show:
            language, sample = self._shell.language, paths.sample_of(talk.asked_about.pictures[-1])
            asks = presentation.sample_asks(sample, language) + presentation.asks(language)
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
        self._message_list.go()

    async def _show_earlier(self) -> None:
        self._all = True
        await self._draw()

    # Asking

    async def _send(self, text: str) -> None:
        """Ask; a second tap while this goes on does nothing."""
        if self._asking:
            return
        self._asking = True
        try:
            await self._opened.wait()
            edits = self.talk.editing is not None
            await self.talk.send(text)
        finally:
            self._asking = False
        if edits or self.composer.text == text:
            self.composer.write(self.talk.text)
        await self._remember()
        await self._to_end()

    def _typed(self, text: str) -> None:
        self.talk.text = text
        if self._chips_line.visible == bool(text):
            self._show_chips()
            self._shell.draw(self._chips_line)
        self._stop_saving()
        self._saving = asyncio.get_running_loop().create_task(self._save_later())

    async def _save_later(self) -> None:
        await asyncio.sleep(settings.FLUSH_S)
        self._shell.start(self.talk.keep())

    def _stop_saving(self) -> None:
        if self._saving:
            self._saving.cancel()
            self._saving = None

    async def keep(self) -> None:
        """Bring what is typed to the disk, and which conversation is open: the app goes to the background."""
        self._stop_saving()
        await self.talk.keep()
        await self._remember()

    async def _remember(self) -> None:
        talk, kept = self.talk, self._shell.preferences
        conversation, chosen = talk.conversation or "", dict(kept.servers)
        if conversation and self._go.server_of(conversation) != talk.server:  # it would be forgotten
            chosen[conversation] = talk.server.id if talk.server else ""
        if (conversation, chosen) != (kept.conversation, kept.servers):
            await self._shell.prefer(conversation=conversation, servers=chosen)

    async def _take_ask(self, text: str) -> None:
        self.talk.text = text
        self.composer.write(text)
        await self.composer.focus()

    async def _again(self, message: Message) -> None:
        if self.talk.growing or self._asking:  # a second tap
            return
        self._asking = True
        try:
            await self.talk.regenerate(message.uuid)
        finally:
            self._asking = False
        await self._to_end()

    async def _edit(self, message: Message) -> None:
        self.composer.hide_notice()
        await self.talk.edit(message)
        self.composer.write(message.text)
        await self.composer.focus()

    async def _leave_edit(self) -> None:
        self.composer.hide_notice()
        await self.talk.leave_edit()
        self.composer.write(self.talk.text)

    # The conversation as a whole

    async def new(self) -> None:
        await self._opened.wait()
        await self.open(None)

    def _once_open(self, do: Handler) -> Handler:
        """`do`, which waits until a conversation is open: the screen is there a moment before, at the app's start."""

        async def call() -> None:
            await self._opened.wait()
            outcome = do()
            if asyncio.iscoroutine(outcome):
                await outcome

        return call

    async def open(self, conversation: str | None) -> None:
        """Show this conversation, or a new one."""
        self._stop_saving()
        try:
            await self.talk.open(conversation, self._go.server_of(conversation))
        finally:
            self._opened.set()
        self._all = False
        self.composer.hide_notice()
        self.composer.write(self.talk.text)
        await self._remember()
        await self._to_end()

    async def answer_by(self, server: Server | None) -> None:
        """Let another one answer in this conversation; None: the model here."""
        await self.talk.answer_by(server)
        await self._remember()

    async def _open_drawer(self) -> None:
        await self._go.history.show()
