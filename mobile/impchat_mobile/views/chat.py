"""The chat screen: the conversation and the composer below it.

In: an `OpenConversation`, which calls this screen as its listener. Out: controls for its messages; each is kept until
its message changes. This file does not know how answers are generated, how pictures are attached (attach_actions.py),
nor the other actions on a message (message_actions.py) or on the conversation (menu.py).
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
from impchat_mobile.guard import Handler, invoke
from impchat_mobile.views import bubbles, menu
from impchat_mobile.views.attach_actions import AttachActions
from impchat_mobile.views.bubbles import AnswerBubble
from impchat_mobile.views.composer import Composer
from impchat_mobile.views.message_actions import MessageActions
from impchat_mobile.views.message_list import MessageList
from impchat_mobile.views.welcome import Welcome

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator

_LOW_HEIGHT = 480  # height in pixels below which the tools are next to the field, if it is wide enough
_ONE_LINE_WIDTH = 600  # minimum width in pixels of the field with the tools next to it
_CHIPS_HEIGHT, _TITLE_HEIGHT = 330, 250  # heights in pixels below which the suggestions and the title bar are hidden
_BAR_HEIGHT = 56  # height of the title bar in pixels


class ChatScreen(Screen):
    """`navigator`: opens other screens."""

    def __init__(self, shell: Shell, current: OpenConversation, navigator: Navigator) -> None:
        self._shell = shell
        self.current = current
        self._navigator = navigator
        self._attach_actions = AttachActions(shell, current, navigator, self._notice)
        self._message_actions = MessageActions(
            shell, current, navigator, self._edit, self._regenerate, self._attach_actions.ask_part
        )
        self._bubbles: dict[str, tuple[object, ft.Control]] = {}  # message -> what its control depends on, the control
        self._running: AnswerBubble | None = None
        self._shows_all = False  # whether earlier messages are shown too
        self._drawing = asyncio.Lock()
        self._opened = asyncio.Event()  # set once a conversation is open
        self._sending = False  # a question is being saved
        self._height = 800.0  # pixels of the conversation and its title bar
        self._saving: asyncio.Task[None] | None = None

    # Drawing

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self.current.listener = self
        self._bubbles.clear()
        self._title = ft.Text("", size=17, weight=ft.FontWeight.W_600, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
        self._where = ft.Text("", size=12, color=theme.MUTED, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
        self._message_list = MessageList(shell, self._to_end)
        attach = self._attach_actions
        self._welcome = Welcome(shell, attach.sample, self._use_suggestion, self._navigator.models)
        self._welcome.control.visible = False  # until it is known that the conversation is empty
        self._chips = ft.Row(spacing=8, scroll=ft.ScrollMode.HIDDEN)
        self._chips_line = ft.Container(
            self._chips, padding=ft.Padding.only(left=12, right=12, bottom=8), visible=False
        )
        self._edit_line = ft.Container(
            ft.Row(
                [
                    ft.Icon(ft.Icons.EDIT_OUTLINED, size=18, color=theme.MUTED),
                    theme.muted(say("mobile.editing"), size=13, expand=True),
                    theme.small_button(ft.Icons.CLOSE_ROUNDED, say("mobile.cancel"), shell.on(self._leave_edit)),
                ]
            ),
            padding=ft.Padding.only(left=20, right=12),
            visible=False,
        )
        self.composer = Composer(
            shell,
            send=self._send,
            stop=self.current.stop,
            typed=self._typed,
            camera=self._once_open(attach.camera),
            gallery=self._once_open(attach.gallery),
            more=self._once_open(attach.more_ways),
            pasted=attach.attach_all,
            open_picture=attach.retouch,
            detach=attach.detach,
            gauge=lambda: menu.context(shell, self.current, self._navigator, self.new),
        )
        self.composer.set_text(self.current.text)
        footer = ft.Column(
            [self._chips_line, self._edit_line, self.composer.control],
            spacing=0,
            tight=True,
            on_size_change=shell.on(self._footer_resized),
        )
        page = ft.Column([self._welcome.control, self._message_list.control, footer], spacing=0, expand=True)
        self._side = ft.Container(width=theme.SIDEBAR_WIDTH, bgcolor=ft.Colors.SURFACE_CONTAINER)
        self._chats = theme.button(ft.Icons.MENU_ROUNDED, say("mobile.chats"), shell.on(self._open_drawer))
        more = shell.on(lambda: menu.conversation(shell, self.current, self._navigator))
        self._drawer = ft.NavigationDrawer([], bgcolor=ft.Colors.SURFACE_CONTAINER_LOW)
        self._view = ft.View(
            [
                ft.SafeArea(
                    ft.Row([self._side, theme.column(page, expand=True)], spacing=0, expand=True,
                           vertical_alignment=ft.CrossAxisAlignment.STRETCH),
                    expand=True,
                    maintain_bottom_view_padding=True,
                    on_size_change=shell.on(self._page_resized),
                )
            ],
            padding=0,
            spacing=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=ft.AppBar(
                automatically_imply_leading=False,
                title=ft.Container(
                    ft.Column([self._title, self._where], spacing=0, tight=True),
                    on_click=shell.on(self._navigator.choose_server),
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
        """Put the list of chats next to the chat, or into a drawer."""
        wide, bar = self._shell.wide, self._view.appbar
        assert isinstance(bar, ft.AppBar)
        self._side.visible = wide
        self._view.drawer = None if wide else self._drawer
        bar.leading, bar.title_spacing = (None, 12) if wide else (self._chats, 0)
        self._navigator.history.attach(self, self._drawer, self._side)

    def _page_resized(self, event: ft.LayoutSizeChangeEvent[ft.SafeArea]) -> None:
        """Adapt to the height of the page, which also changes when a keyboard opens."""
        bar = self._view.appbar
        assert isinstance(bar, ft.AppBar)
        self._height = event.height + (_BAR_HEIGHT if bar.visible else 0)
        self.composer.set_low(self._height < _LOW_HEIGHT and event.width >= _ONE_LINE_WIDTH)
        if bar.visible == (self._height < _TITLE_HEIGHT):
            bar.visible = not bar.visible
            self._shell.page.update()
        self._show_chips()
        self._shell.draw(self._chips_line)
        self._message_list.grew()

    def _footer_resized(self, event: ft.LayoutSizeChangeEvent[ft.Column]) -> None:
        self._shell.notice_offset = event.height
        self._message_list.grew()

    async def shown(self) -> None:
        self.composer.set_text(self.current.text)  # another conversation may be open by now
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
            self._shell.start(self._navigator.history.refresh())
        self._message_list.grew()

    # Calls of the open conversation

    def changed(self) -> None:
        self._shell.start(self._draw())

    def grew(self) -> None:
        if self._running and self.current.growing:
            self._running.grow(self.current.growing.answer.progress)
            self._message_list.grew()

    def drafted(self) -> None:
        self._shell.start(self._draw_draft())

    async def _draw(self) -> None:
        """Update the list of messages from the open conversation."""
        async with self._drawing:
            current, shell = self.current, self._shell
            messages = current.messages
            hidden = 0 if self._shows_all else max(0, len(messages) - settings.MOBILE_MESSAGES)
            shown = messages[hidden:]
            names = {name for message in shown for name in message.images}
            thumbnails = await asyncio.to_thread(shell.app.thumbnails.available, names)
            boxed = await asyncio.to_thread(self._boxed, shown)
            if current.messages is not messages:  # a newer call of _draw follows
                return
            kept: dict[str, tuple[object, ft.Control]] = {}
            self._running = None
            for place, message in enumerate(shown, hidden):
                last = place >= len(messages) - 1
                made_of = (message, current.versions.get(message.uuid), last, len(names & thumbnails.keys()))
                before = self._bubbles.get(message.uuid)
                if before and before[0] == made_of and message.state != "streaming":
                    kept[message.uuid] = before
                else:
                    kept[message.uuid] = made_of, self._message(message, thumbnails, boxed.get(message.uuid), last)
            self._bubbles = kept
            controls = [control for _, control in kept.values()]
            if hidden:
                earlier = ft.TextButton(
                    shell.say("mobile.earlier", count=hidden), on_click=shell.on(self._show_earlier)
                )
                controls.insert(0, ft.Row([earlier], alignment=ft.MainAxisAlignment.CENTER))
            self._message_list.list.controls = controls
            self._message_list.control.visible = bool(messages)
            self._welcome.show(not messages and self._opened.is_set(), current.demo, self._navigator.server_name())
            self._title.value = (
                presentation.title_of(current.row, shell.language) if current.row else shell.say("chat.untitled")
            )
            self._where.value = self._navigator.answered_by()
            self.composer.show_answering(current.growing is not None)
            self.composer.show_gauge(current.context_used)
            self._show_chips()
            shell.page.update()
            self.grew()
        if self._shell.wide:
            await self._navigator.history.refresh()

    def _message(self, message: Message, thumbnails: dict[str, bytes], boxes: bytes | None, last: bool) -> ft.Control:
        versions = self.current.versions.get(message.uuid, (message.uuid,))
        which = versions.index(message.uuid) + 1, len(versions)
        if message.role == "user":
            return bubbles.question_bubble(self._shell, message, thumbnails, which, self._message_actions)
        bubble = AnswerBubble(self._shell, message, boxes, which, last, self._message_actions)
        if message.state == "streaming":
            self._running = bubble
        return bubble.control

    def _boxed(self, shown: list[Message]) -> dict[str, bytes]:
        """Answer -> thumbnail of the picture with its boxes. Blocks."""
        found = {}
        for message in shown:
            if message.role == "assistant" and (data := self.current.boxed(message)):
                found[message.uuid] = images.thumbnail(data, 2 * settings.THUMBNAIL_SIDE)
        return found

    async def _draw_draft(self) -> None:
        """Update the pictures of the question. The text is left alone: the field may be ahead of the conversation."""
        current = self.current
        draft, thumbnails = current.asked_about, {}
        if draft.pictures:
            thumbnails = await asyncio.to_thread(
                self._thumbnails, draft.pictures, current.editing.new if current.editing else {}
            )
        if draft == current.asked_about:
            self._edit_line.visible = current.editing is not None
            self._shell.draw(self._edit_line)
            self.composer.show_draft(draft, thumbnails)
            self._show_chips()
            self._shell.draw(self._chips_line)
            self._where.value = self._navigator.answered_by()  # may now know that the model is unverified
            self._shell.draw(self._where)

    def _thumbnails(self, pictures: Sequence[str], new: Mapping[str, Prepared]) -> dict[str, bytes]:
        """Name -> thumbnail; the pictures in `new` are not in the history yet. Blocks."""
        found = self._shell.app.thumbnails.available(name for name in pictures if name not in new)
        return found | {name: images.thumbnail(new[name].data) for name in pictures if name in new}

    def _show_chips(self) -> None:
        """Show suggested questions if there is a picture and nothing is typed; else hide them."""
        current = self.current
        show = bool(current.asked_about.pictures) and not (
            current.text or current.growing or self._height < _CHIPS_HEIGHT
        )
        self._chips_line.visible = show
        self._welcome.show_suggestions(not show)
        if show:
            language, sample = self._shell.language, paths.sample_of(current.asked_about.pictures[-1])
            suggestions = presentation.sample_asks(sample, language) + presentation.asks(language)
            self._chips.controls = [
                ft.Container(
                    ft.Text(text, size=14),
                    padding=ft.Padding.symmetric(horizontal=14, vertical=9),
                    border_radius=18,
                    bgcolor=ft.Colors.SURFACE_CONTAINER_HIGH,
                    ink=True,
                    on_click=self._shell.on(lambda text=text: self._send(text)),
                )
                for text in suggestions
            ]

    async def _to_end(self) -> None:
        """Update the list and scroll to its end."""
        await self._draw()
        self._message_list.scroll_to_end()

    async def _show_earlier(self) -> None:
        self._shows_all = True
        await self._draw()

    # Asking

    async def _send(self, text: str) -> None:
        """Send a question. Does nothing while another one is being sent."""
        if self._sending:
            return
        self._sending = True
        try:
            await self._opened.wait()
            edits = self.current.editing is not None
            await self.current.send(text)
        finally:
            self._sending = False
        if edits or self.composer.text == text:
            self.composer.set_text(self.current.text)
        await self._save_choices()
        await self._to_end()

    async def _typed(self, text: str) -> None:
        self.current.text = text
        if text[-1:].isspace():
            await self.current.read_typed()
        if self._chips_line.visible == bool(text):
            self._show_chips()
            self._shell.draw(self._chips_line)
        self._stop_saving()
        self._saving = asyncio.get_running_loop().create_task(self._save_later())

    async def _save_later(self) -> None:
        await asyncio.sleep(settings.FLUSH_S)
        self._shell.start(self.current.keep())

    def _stop_saving(self) -> None:
        if self._saving:
            self._saving.cancel()
            self._saving = None

    async def keep(self) -> None:
        """Save the typed text and which conversation is open, before the app goes to the background."""
        self._stop_saving()
        await self.current.keep()
        await self._save_choices()

    async def _save_choices(self) -> None:
        current, kept = self.current, self._shell.preferences
        conversation, chosen = current.conversation or "", dict(kept.servers)
        if conversation and self._navigator.server_of(conversation) != current.server:  # not saved yet
            chosen[conversation] = current.server.id if current.server else ""
        if (conversation, chosen) != (kept.conversation, kept.servers):
            await self._shell.prefer(conversation=conversation, servers=chosen)

    async def _use_suggestion(self, text: str) -> None:
        self.current.text = text
        self.composer.set_text(text)
        await self.composer.focus()

    async def _regenerate(self, message: Message) -> None:
        if self.current.growing or self._sending:  # a second tap
            return
        self._sending = True
        try:
            await self.current.regenerate(message.uuid)
        finally:
            self._sending = False
        await self._to_end()

    async def _edit(self, message: Message) -> None:
        self.composer.hide_notice()
        await self.current.edit(message)
        self.composer.set_text(message.text)
        await self.composer.focus()

    async def _leave_edit(self) -> None:
        self.composer.hide_notice()
        await self.current.leave_edit()
        self.composer.set_text(self.current.text)

    # The conversation as a whole

    async def new(self) -> None:
        await self._opened.wait()
        await self.open(None)

    def _once_open(self, do: Handler) -> Handler:
        """`do`, but only once a conversation is open, which at the start is a moment later than the screen is shown."""

        async def call() -> None:
            await self._opened.wait()
            await invoke(do)

        return call

    async def open(self, conversation: str | None) -> None:
        """Show this conversation, or a new one if None."""
        self._stop_saving()
        try:
            await self.current.open(conversation, self._navigator.server_of(conversation))
        finally:
            self._opened.set()
        self._shows_all = False
        self.composer.hide_notice()
        self.composer.set_text(self.current.text)
        await self._save_choices()
        await self._to_end()

    async def set_server(self, server: Server | None) -> None:
        """Choose the server for this conversation; None: the local model."""
        await self.current.set_server(server)
        await self._save_choices()

    async def _open_drawer(self) -> None:
        await self._navigator.history.show()
