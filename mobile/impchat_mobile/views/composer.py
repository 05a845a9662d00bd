"""The composer: the text and pictures of the next question, and the progress of their prefill.

In: the draft, and what the user types and taps. Out: calls to the chat screen.
This file does not know conversations or the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import flet as ft

from impchat import presentation
from impchat_mobile import theme
from impchat_mobile.app_shell import Shell
from impchat_mobile.conversation import Draft
from impchat_mobile.guard import Handler, invoke

_PICTURE_HEIGHT, _PICTURE_HEIGHT_LOW = 68, 40  # height in pixels of a picture, and on a low screen
_LINES, _LINES_LOW = 6, 2  # maximum lines of the text field, and on a low screen
_DOUBLE_TAP_S = 0.4  # a second tap on the round button within this time is a double tap, not Stop


class Composer:
    """The card at the lower edge. `control` is never replaced while the user types in it."""

    def __init__(
        self,
        shell: Shell,
        *,
        send: Callable[[str], object],
        stop: Handler,
        typed: Callable[[str], object],
        camera: Handler,
        gallery: Handler,
        more: Handler,
        pasted: Callable[[list[tuple[str, bytes]]], object],
        open_picture: Callable[[str], object],
        detach: Callable[[str], object],
        gauge: Handler,
    ) -> None:
        self._shell = shell
        self._send, self._stop, self._typed = send, stop, typed
        self._open_picture, self._detach, self._pasted = open_picture, detach, pasted
        self._answering = False
        self._sent_at = 0.0
        self._low = False
        self._draft: tuple[Draft, Mapping[str, bytes]] = Draft(), {}
        self.field = ft.TextField(
            label=shell.say("chat.question_hint"),
            border=ft.NoInputBorder(),
            min_lines=1,
            max_lines=_LINES,
            expand=True,
            shift_enter=_has_keyboard(shell.page),
            text_size=16,
            capitalization=ft.TextCapitalization.SENTENCES,
            content_padding=ft.Padding.only(left=16, right=16, top=2, bottom=2),
            on_change=shell.on(self._text_changed),
            on_submit=shell.on(self._submitted),
            on_paste_files=shell.on(self._paste),
        )
        self._pictures = ft.Row(spacing=8, scroll=ft.ScrollMode.AUTO)
        self._ring = ft.ProgressRing(width=14, height=14, stroke_width=2)
        self._status = ft.Text("", size=13, color=theme.MUTED, expand=True)
        self._status_row = ft.Semantics(live_region=True, content=ft.Row([self._ring, self._status], spacing=8))
        self._draft_row = ft.Container(padding=ft.Padding.only(left=12, right=12, top=4, bottom=8), visible=False)
        self._notice = ft.Container(visible=False, padding=ft.Padding.only(left=12, bottom=4))
        self._gauge = ft.ProgressRing(value=0, width=18, height=18, stroke_width=3, bgcolor=ft.Colors.OUTLINE_VARIANT)
        self._gauge_words = ft.Text("", size=13, color=theme.MUTED)
        gauge_row = ft.Row([self._gauge, self._gauge_words], spacing=6, tight=True)
        self._gauge_region = ft.Semantics(label="", button=True, exclude_semantics=True, content=gauge_row)
        self._gauge_button = ft.Container(
            self._gauge_region,
            on_click=shell.on(gauge),
            ink=True,
            border_radius=20,
            padding=ft.Padding.symmetric(horizontal=10, vertical=14),
            visible=False,
        )
        self._send_button = ft.IconButton(
            theme.icon(ft.Icons.ARROW_UPWARD_ROUNDED, shell.say("chat.send"), color=ft.Colors.ON_PRIMARY),
            tooltip=shell.say("chat.send"),
            on_click=shell.on(self._submit),
            bgcolor=ft.Colors.PRIMARY,
        )
        self._attach_buttons = [
            theme.button(ft.Icons.PHOTO_CAMERA_OUTLINED, shell.say("mobile.camera"), shell.on(camera)),
            theme.button(ft.Icons.IMAGE_OUTLINED, shell.say("mobile.gallery"), shell.on(gallery)),
            theme.button(ft.Icons.ADD_ROUNDED, shell.say("mobile.more_ways"), shell.on(more)),
        ]
        self._inline_tools, self._tools = ft.Row(spacing=0, tight=True), ft.Row(spacing=0)
        # The field is always the first control of this row: moving it would close the keyboard.
        line = ft.Row([self.field, self._inline_tools], spacing=0, vertical_alignment=ft.CrossAxisAlignment.END)
        self.control = ft.Container(
            ft.Column([self._notice, self._draft_row, line, self._tools], spacing=0, tight=True),
            bgcolor=ft.Colors.SURFACE_CONTAINER_LOWEST,
            border=ft.Border.all(1, ft.Colors.OUTLINE_VARIANT),
            border_radius=26,
            padding=ft.Padding.only(left=4, right=6, top=8, bottom=6),
            margin=ft.Margin.only(left=8, right=8, bottom=8),
        )
        self._lay_out()
        self._update_send_button()

    @property
    def text(self) -> str:
        return self.field.value or ""

    def set_text(self, text: str) -> None:
        """Replace the typed text."""
        if self.text != text:
            self.field.value = text
            self._shell.draw(self.field)
        self._update_send_button()

    async def focus(self) -> None:
        await self.field.focus()

    def set_low(self, low: bool) -> None:
        """Use as little height as possible, for a phone in landscape with its keyboard open."""
        if low != self._low:
            self._low = low
            self._lay_out()
            self.show_draft(*self._draft)
            self._shell.draw(self.control)

    def _lay_out(self) -> None:
        low = self._low
        self.field.max_lines = _LINES_LOW if low else _LINES
        ends = [self._gauge_button, self._send_button]
        self._inline_tools.controls = [*self._attach_buttons, *ends] if low else []
        self._tools.controls = [] if low else [*self._attach_buttons, ft.Container(expand=True), *ends]
        self._inline_tools.visible, self._tools.visible = low, not low
        line = [self._pictures, self._status_row]
        self._pictures.expand = 1 if low else None
        self._status_row.expand = 1 if low else None
        self._draft_row.content = ft.Row(line, spacing=12) if low else ft.Column(line, spacing=6, tight=True)

    # Sending

    async def _text_changed(self) -> None:
        self._update_send_button()
        await invoke(self._typed, self.text)

    async def _submitted(self) -> None:
        """Send the text. While an answer is running, keep the text and show a notice."""
        if not self._answering:
            await self._submit()
        elif self.text.strip():
            self.show_notice(self._shell.say("mobile.still_answering"))

    async def _submit(self) -> None:
        now = time.monotonic()
        if not self._answering:
            if self._can_send:
                self._sent_at = now
                self.hide_notice()
                await invoke(self._send, self.text)
        elif now - self._sent_at > _DOUBLE_TAP_S:
            await invoke(self._stop)

    @property
    def _can_send(self) -> bool:
        """Whether there is something to send."""
        return bool(self.text.strip() or self._draft[0].pictures)

    async def _paste(self, event: ft.TextFieldPasteFilesEvent) -> None:
        await invoke(self._pasted, [(file.name, file.bytes) for file in event.files if file.bytes])

    # Showing

    def show_answering(self, answering: bool) -> None:
        """Set whether the round button stops an answer or sends."""
        if answering != self._answering:
            self._answering = answering
            self.hide_notice()
            self._update_send_button()

    def _update_send_button(self) -> None:
        """Update the round button, which is disabled if there is nothing to send."""
        button, answering, idle = self._send_button, self._answering, not (self._answering or self._can_send)
        label = self._shell.say("chat.stop" if answering else "chat.send")
        now = label, idle
        if button.data == now:
            return
        icon = ft.Icons.STOP_ROUNDED if answering else ft.Icons.ARROW_UPWARD_ROUNDED
        button.icon = theme.icon(icon, label, color=ft.Colors.OUTLINE if idle else ft.Colors.ON_PRIMARY)
        button.bgcolor = ft.Colors.SURFACE_CONTAINER_HIGH if idle else ft.Colors.PRIMARY
        button.tooltip, button.disabled, button.data = label, idle, now
        self._shell.draw(button)

    def show_notice(self, text: str, undo: Handler | None = None, error: bool = False) -> None:
        """Show a sentence above the field until the next action. `undo`: the action of an Undo button."""
        shell, colour = self._shell, ft.Colors.ERROR if error else theme.MUTED
        message = ft.Text(text, size=13, color=colour)
        row: list[ft.Control] = [
            ft.Icon(ft.Icons.ERROR_OUTLINE if error else ft.Icons.INFO_OUTLINE, size=18, color=colour),
            ft.Semantics(live_region=True, content=message, expand=True),
        ]
        if undo:

            async def undo_and_hide() -> None:
                self.hide_notice()
                await invoke(undo)

            row.append(ft.TextButton(shell.say("mobile.undo"), on_click=shell.on(undo_and_hide)))
        row.append(theme.small_button(ft.Icons.CLOSE_ROUNDED, shell.say("mobile.close"), shell.on(self.hide_notice)))
        self._notice.content, self._notice.visible = ft.Row(row, spacing=8), True
        self._show_draft_row()
        shell.draw(self._notice, self._draft_row)

    def hide_notice(self) -> None:
        if self._notice.visible:
            self._notice.visible = False
            self._show_draft_row()
            self._shell.draw(self._notice, self._draft_row)

    def _show_draft_row(self) -> None:
        """Show the pictures, but not together with a notice on a low screen."""
        self._draft_row.visible = bool(self._draft[0].pictures) and not (self._low and self._notice.visible)

    def show_gauge(self, share: float) -> None:
        """Show how full the context is; `share`: 0 to 1."""
        self._gauge_button.visible = share > 0
        self._gauge.value = share
        self._gauge.color = ft.Colors.ERROR if share > 0.9 else ft.Colors.PRIMARY
        percent = round(100 * share)
        self._gauge_words.value = self._shell.say("mobile.context_short", percent=percent)
        self._gauge_region.label = self._shell.say("mobile.context", percent=percent)
        self._shell.draw(self._gauge_button)

    def show_draft(self, draft: Draft, thumbnails: Mapping[str, bytes]) -> None:
        """Show the pictures of the draft and the progress of their prefill. `thumbnails`: by name."""
        say = self._shell.say
        self._draft = draft, thumbnails
        self._show_draft_row()
        self._pictures.controls = [
            self._picture(name, number, len(draft.pictures), thumbnails.get(name))
            for number, name in enumerate(draft.pictures, 1)
        ]
        self._status_row.visible = bool(draft.reading or draft.ready or draft.failed)
        self._ring.visible = draft.reading and not draft.ready and draft.failed is None
        self._status.color = ft.Colors.ERROR if draft.failed else theme.MUTED
        if draft.failed:
            self._status.value = presentation.sentence(draft.failed, self._shell.language)
        elif draft.ready:
            self._status.value = say("chat.ready")
        elif draft.percent:
            self._status.value = say("chat.reading_picture_percent", percent=draft.percent)
        else:
            self._status.value = say("chat.reading_picture")
        self._shell.draw(self._draft_row)
        self._update_send_button()

    def _picture(self, name: str, number: int, count: int, data: bytes | None) -> ft.Control:
        say = self._shell.say
        label = say("mobile.draft_picture", number=number, count=count)
        side = _PICTURE_HEIGHT_LOW if self._low else _PICTURE_HEIGHT
        image: ft.Control = (
            theme.picture(data, 2 * side, side, radius=14, label=label)
            if data
            else ft.Icon(ft.Icons.IMAGE_OUTLINED, width=side, height=side, semantics_label=label)
        )
        look = self._shell.on(lambda: self._open_picture(name))
        remove = theme.small_button(
            ft.Icons.CLOSE_ROUNDED, say("mobile.detach"), self._shell.on(lambda: self._detach(name))
        )
        return ft.Container(
            ft.Row(
                [ft.Container(image, on_click=look, border_radius=14, ink=True, tooltip=say("mobile.retouch")), remove],
                spacing=0,
                tight=True,
            ),
            border=ft.Border.all(1, ft.Colors.OUTLINE_VARIANT),
            border_radius=14,
        )


def _has_keyboard(page: ft.Page) -> bool:
    """Whether Enter sends: only with a hardware keyboard, which browsers are assumed to have."""
    return page.platform not in (ft.PagePlatform.ANDROID, ft.PagePlatform.IOS) or page.web
