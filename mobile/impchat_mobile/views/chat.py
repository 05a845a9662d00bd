"""The chat screen: the conversation, the composer, and what is done from there.

In: a `Talk`, whose listener it is. Out: its messages on the screen, each control made once and kept as long as its
message stays the same. This file does not know how answers are made.
"""

from __future__ import annotations

import asyncio
from typing import Any

import flet as ft

from impchat import grounding, images, paths, remarks, settings
from impchat.messages import Message
from impchat.servers import Server
from impchat_mobile import looks
from impchat_mobile.shell import Screen, Shell
from impchat_mobile.talk import Talk
from impchat_mobile.views import bubbles
from impchat_mobile.views.bubbles import Answered, Doing
from impchat_mobile.views.composer import Composer
from impchat_mobile.views.welcome import Welcome

_FRAMES_S = 0.1  # in which what was sent to the screen is on it
_NEAR_END = 120  # pixels from the end, within which a growing answer is followed


class ChatScreen(Screen):
    """`go` opens the other screens; it is given by whoever knows them."""

    def __init__(self, shell: Shell, talk: Talk, go: Any) -> None:
        self._shell = shell
        self.talk = talk
        self._go = go
        self._kept: dict[str, tuple[Any, ft.Control]] = {}  # message -> what its control was made of, and the control
        self._grows: Answered | None = None
        self._all = False  # whether earlier messages were asked for
        self._drawing = asyncio.Lock()
        self._editing: str | None = None
        self._saving: asyncio.Task[None] | None = None
        self._at_end = True

    # Drawing

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self.talk.listener = self
        self._kept.clear()
        self._title = ft.Text("", size=17, weight=ft.FontWeight.W_600, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
        self._where = ft.Text("", size=12, color=looks.FAINT, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
        self._list = ft.ListView(
            expand=True,
            spacing=12,
            padding=ft.Padding.only(left=16, right=16, top=12, bottom=24),
            auto_scroll=True,
            auto_scroll_animation=0,
            scroll_interval=100,
            on_scroll=shell.on(self._scrolled),
        )
        self._latest = ft.IconButton(
            ft.Icons.ARROW_DOWNWARD_ROUNDED,
            tooltip=say("mobile.latest"),
            visible=False,
            bottom=8,
            right=12,
            bgcolor=ft.Colors.SURFACE_CONTAINER_HIGHEST,
            on_click=shell.on(self._to_end),
        )
        self._welcome = Welcome(shell, self._take_sample, self._take_ask, self._go.models)
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
            camera=lambda: self._go.camera(self._attach),
            gallery=self._gallery,
            more=self._more_ways,
            pasted=self._attach,
            open_picture=self._retouch,
            detach=self.talk.detach,
            gauge=self._explain_context,
        )
        self.composer.field.value = typed
        self._body = ft.Stack([self._list, self._latest], expand=True)
        page = ft.Column(
            [self._welcome.control, self._body, self._chips_line, self._edit_line, self.composer.control],
            spacing=0,
            expand=True,
        )
        self._side = ft.Container(width=looks.SIDE, visible=shell.wide, bgcolor=ft.Colors.SURFACE_CONTAINER)
        self._menu = looks.button(ft.Icons.MENU_ROUNDED, say("mobile.chats"), shell.on(self._open_drawer))
        self._menu.visible = not shell.wide
        self._drawer = ft.NavigationDrawer([], bgcolor=ft.Colors.SURFACE_CONTAINER_LOW)
        self._go.history.attach(self, self._drawer, self._side)
        return ft.View(
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
            drawer=self._drawer,
            appbar=ft.AppBar(
                leading=self._menu,
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
                    looks.button(ft.Icons.MORE_VERT_ROUNDED, say("mobile.more"), shell.on(self._more)),
                ],
            ),
        )  # fmt: skip

    async def shown(self) -> None:
        await self._draw()
        await self._draw_draft()

    def resized(self) -> None:
        wide = self._shell.wide
        if self._side.visible != wide:
            self._side.visible, self._menu.visible = wide, not wide
            self._shell.page.update()

    # What the talk tells

    def changed(self) -> None:
        self._shell.start(self._draw())

    def grew(self) -> None:
        if self._grows and self.talk.growing:
            self._grows.grow(self.talk.growing)

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
            self._list.controls = controls
            self._body.visible = bool(messages)
            self._welcome.show(not messages, demo=shell.app.demo)
            self._title.value = talk.title or shell.say("chat.untitled")
            self._where.value = self._go.where()
            self.composer.show_answering(talk.growing is not None)
            self.composer.show_gauge(talk.context_used)
            self._show_chips()
            shell.page.update()
            if self._grows and talk.growing:
                self._grows.grow(talk.growing)

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
            if message.role == "assistant" and (data := self._picture_with_boxes(message)):
                found[message.uuid] = images.thumbnail(data, 2 * settings.THUMBNAIL_SIDE)
        return found

    def _picture_with_boxes(self, answer: Message) -> bytes | None:
        boxes = grounding.boxes(answer.text)
        pictures = [name for m in self.talk.messages[: self.talk.messages.index(answer)] for name in m.images]
        if not (boxes and pictures):
            return None
        return grounding.draw(self._shell.app.history.image_bytes(pictures[-1]), boxes)

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

    # Scrolling

    def _scrolled(self, event: ft.OnScrollEvent) -> None:
        far = event.max_scroll_extent - event.pixels > _NEAR_END
        if far != self._latest.visible:
            self._latest.visible = far
            self._shell.draw(self._latest)

    async def _to_end(self) -> None:
        """Show the latest words; behind the drawing of what they are."""
        await self._draw()
        self._list.auto_scroll = False
        self._shell.draw(self._list)
        for _ in range(2):  # the first one finds out how long the list is, which is known only where it was drawn
            await asyncio.sleep(_FRAMES_S)
            await self._list.scroll_to(offset=-1, duration=0)
        self._list.auto_scroll = True
        self._shell.draw(self._list)

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
        conversation, server = talk.conversation or "", talk.server.id if talk.server else ""
        chosen = {c: s for c, s in kept.servers.items() if c != conversation}
        if conversation and server:
            chosen[conversation] = server
        if (conversation, chosen) != (kept.conversation, kept.servers):
            await self._shell.prefer(conversation=conversation, servers=chosen)

    async def _take_sample(self, path: Any) -> None:
        await self._attach(await asyncio.to_thread(path.read_bytes))

    async def _take_ask(self, text: str) -> None:
        self.composer.write(text)
        await self.composer.focus()

    # Pictures

    async def _attach(self, data: bytes) -> None:
        await self.talk.attach(data)

    async def _gallery(self) -> None:
        files = await self._shell.picker.pick_files(
            file_type=ft.FilePickerFileType.IMAGE,
            allow_multiple=True,
            with_data=self._shell.page.web,
            cancel_upload_on_window_blur=False,
        )
        for file in files:
            await self._attach(file.bytes or await asyncio.to_thread(_read, file.path))

    async def _paste(self) -> None:
        data = await self._shell.clipboard.get_image()
        if data:
            await self._attach(data)
        else:
            self._shell.tell(self._shell.say("mobile.nothing_to_paste"))

    async def _retouch(self, name: str) -> None:
        data = await asyncio.to_thread(self._shell.app.history.image_bytes, name)
        await self._go.retouch(data, lambda changed: self.talk.swap(name, changed), self._attach)

    def _more_ways(self) -> None:
        shell, say = self._shell, self._shell.say
        samples = [
            ft.Container(
                ft.Image(path.read_bytes(), width=88, height=88, fit=ft.BoxFit.COVER, border_radius=14,
                         semantics_label=say("chat.sample", number=number)),
                on_click=shell.on(lambda path=path: self._close_and(lambda: self._take_sample(path))),
                border_radius=14,
                ink=True,
            )
            for number, path in enumerate(paths.samples(), 1)
        ]  # fmt: skip
        shell.sheet(
            shell.action(ft.Icons.CONTENT_PASTE_ROUNDED, say("mobile.paste"), self._paste),
            shell.action(ft.Icons.PHOTO_LIBRARY_OUTLINED, say("mobile.library"), lambda: self._go.photos(self._attach)),
            shell.action(ft.Icons.VISIBILITY_OFF_OUTLINED, say("mobile.eyes_free"), self._go.eyes_free),
            looks.heading(say("chat.samples")),
            ft.Container(
                ft.Row(samples, spacing=8, scroll=ft.ScrollMode.AUTO), padding=ft.Padding.only(left=16, right=16, top=8)
            ),
        )

    async def _close_and(self, do: Any) -> None:
        self._shell.page.pop_dialog()
        await do()

    # What is done with messages

    @property
    def _doing(self) -> Doing:
        return Doing(
            edit=self._edit,
            regenerate=lambda message: self._again(message),
            choose=lambda message, step: self.talk.choose(message.uuid, step),
            share=self._share,
            listen=lambda message: self._shell.announce(message.text),
            look=self._look,
            look_boxes=self._look_boxes,
            link=self._link,
            explain=self._explain,
        )

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

    def _explain(self, message: Message) -> None:
        shell, stats = self._shell, message.stats
        if stats:
            lines = [ft.Text(line) for line in remarks.receipt_details(stats, shell.language)]
            heading = ft.Text(shell.say("mobile.receipt"), size=18, weight=ft.FontWeight.W_600)
            body = ft.Column([heading, *lines], spacing=8, tight=True)
            shell.sheet(ft.Container(body, padding=ft.Padding.only(left=20, right=20, bottom=8)))

    async def _share(self, message: Message) -> None:
        try:
            await self._shell.share.share_text(message.text)
        except Exception:  # noqa: BLE001 - this platform shares nothing: the clipboard does
            await self._shell.copy(message.text)

    async def _look(self, message: Message, name: str) -> None:
        data = [await asyncio.to_thread(self._shell.app.history.image_bytes, sha) for sha in message.images]
        await self._go.viewer(data, message.images.index(name), self._ask_about_part)

    async def _look_boxes(self, message: Message) -> None:
        data = await asyncio.to_thread(self._picture_with_boxes, message)
        if data:
            await self._go.viewer([data], 0, None)

    async def _ask_about_part(self, data: bytes) -> None:
        await self._go.retouch(data, self._attach, None)

    def _link(self, address: str) -> None:
        shell = self._shell

        async def follow() -> None:
            await shell.links.launch_url(address)

        if address.lower().startswith(("http://", "https://", "mailto:")):
            shell.ask(shell.say("mobile.link"), ft.Text(address, selectable=True), shell.say("mobile.open"), follow)

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
        await self._go.history.refresh()
        await self._shell.page.show_drawer()

    def _more(self) -> None:
        shell, say = self._shell, self._shell.say
        actions = []
        if self.talk.conversation and self.talk.messages:
            uuid = self.talk.conversation
            actions = [
                shell.action(
                    ft.Icons.DRIVE_FILE_RENAME_OUTLINE, say("chat.rename"), lambda: self._go.history.rename(uuid)
                ),
                shell.action(ft.Icons.IOS_SHARE_ROUNDED, say("mobile.export"), lambda: self._go.export(uuid)),
                shell.action(
                    ft.Icons.DELETE_OUTLINE_ROUNDED,
                    say("chat.delete"),
                    lambda: self._go.history.delete(uuid),
                    danger=True,
                ),
            ]
        shell.sheet(
            *actions,
            shell.action(ft.Icons.VISIBILITY_OFF_OUTLINED, say("mobile.eyes_free"), self._go.eyes_free),
            shell.action(ft.Icons.SETTINGS_OUTLINED, say("mobile.settings"), self._go.settings),
        )

    def _explain_context(self) -> None:
        shell, say = self._shell, self._shell.say
        left = max(0, round((1 - self.talk.context_used) * self.talk.context_tokens))
        image = shell.app.bundle.image.tokens if shell.app.bundle else 0
        room = say("mobile.context_left", words=_words(left), pictures=left // (image or 256))
        shell.sheet(
            ft.Container(
                ft.Column(
                    [
                        ft.Text(say("mobile.context", percent=round(100 * self.talk.context_used)), size=18,
                                weight=ft.FontWeight.W_600),
                        ft.ProgressBar(value=self.talk.context_used, border_radius=4, bar_height=8),
                        ft.Text(room, color=looks.FAINT),
                    ],
                    spacing=12,
                    tight=True,
                ),
                padding=ft.Padding.only(left=20, right=20, bottom=8),
            ),
            shell.action(ft.Icons.EDIT_SQUARE, say("chat.new"), self.new),
            shell.action(ft.Icons.TUNE_ROUNDED, say("mobile.context_change"), self._go.settings),
        )  # fmt: skip


def _words(tokens: int) -> int:
    """About as many words as tokens say, in round numbers."""
    return round(tokens * 0.7 / 50) * 50


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
