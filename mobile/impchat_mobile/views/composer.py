"""Where the next question is made: words, pictures, and how far the model is with them.

In: what the talk's draft says, what a person types and taps. Out: calls to the chat screen.
This file does not know conversations or the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flet as ft

from impchat import remarks
from impchat_mobile import looks
from impchat_mobile.shell import Shell
from impchat_mobile.talk import Draft

_SIDE = 68


class Composer:
    """The card at the lower edge. `control` is never made anew while somebody types in it."""

    def __init__(
        self,
        shell: Shell,
        *,
        send: Callable[[str], Any],
        stop: Callable[[], Any],
        typed: Callable[[str], Any],
        camera: Callable[[], Any],
        gallery: Callable[[], Any],
        more: Callable[[], Any],
        pasted: Callable[[bytes], Any],
        open_picture: Callable[[str], Any],
        detach: Callable[[str], Any],
        gauge: Callable[[], Any],
    ) -> None:
        self._shell = shell
        self._send, self._stop = send, stop
        self._open_picture, self._detach, self._pasted = open_picture, detach, pasted
        self._answering = False
        self.field = ft.TextField(
            label=shell.say("chat.question_hint"),
            border=ft.NoInputBorder(),
            min_lines=1,
            max_lines=6,
            shift_enter=_has_keyboard(shell.page),
            text_size=16,
            capitalization=ft.TextCapitalization.SENTENCES,
            content_padding=ft.Padding.only(left=16, right=16, top=2, bottom=2),
            on_change=shell.on(lambda event: typed(event.control.value or "")),
            on_submit=shell.on(self._go),
            on_paste_files=shell.on(self._paste),
        )
        self._pictures = ft.Row(spacing=8, scroll=ft.ScrollMode.AUTO)
        self._ring = ft.ProgressRing(width=14, height=14, stroke_width=2)
        self._status = ft.Text("", size=13, color=looks.FAINT, expand=True)
        self._line = ft.Semantics(live_region=True, content=ft.Row([self._ring, self._status], spacing=8))
        self._above = ft.Container(
            ft.Column([self._pictures, self._line], spacing=6, tight=True),
            padding=ft.Padding.only(left=12, right=12, top=4, bottom=8),
            visible=False,
        )
        self._gauge = ft.ProgressRing(value=0, width=18, height=18, stroke_width=3, bgcolor=ft.Colors.OUTLINE_VARIANT)
        self._gauge_words = ft.Text("", size=13, color=looks.FAINT)
        gauge_row = ft.Row([self._gauge, self._gauge_words], spacing=6, tight=True)
        self._gauge_said = ft.Semantics(label="", button=True, exclude_semantics=True, content=gauge_row)
        self._gauge_button = ft.Container(
            self._gauge_said,
            on_click=shell.on(gauge),
            ink=True,
            border_radius=20,
            padding=ft.Padding.symmetric(horizontal=10, vertical=14),
            visible=False,
        )
        self._go_button = ft.IconButton(
            looks.sign(ft.Icons.ARROW_UPWARD_ROUNDED, shell.say("chat.send"), color=ft.Colors.ON_PRIMARY),
            tooltip=shell.say("chat.send"),
            on_click=shell.on(self._go),
            bgcolor=ft.Colors.PRIMARY,
        )
        tools = ft.Row(
            [
                looks.button(ft.Icons.PHOTO_CAMERA_OUTLINED, shell.say("mobile.camera"), shell.on(camera)),
                looks.button(ft.Icons.IMAGE_OUTLINED, shell.say("mobile.gallery"), shell.on(gallery)),
                looks.button(ft.Icons.ADD_ROUNDED, shell.say("mobile.more_ways"), shell.on(more)),
                ft.Container(expand=True),
                self._gauge_button,
                self._go_button,
            ],
            spacing=0,
        )
        self.control = ft.Container(
            ft.Column([self._above, self.field, tools], spacing=0, tight=True),
            bgcolor=ft.Colors.SURFACE_CONTAINER_LOWEST,
            border=ft.Border.all(1, ft.Colors.OUTLINE_VARIANT),
            border_radius=26,
            padding=ft.Padding.only(left=4, right=6, top=8, bottom=6),
            margin=ft.Margin.only(left=8, right=8, bottom=8),
        )

    @property
    def text(self) -> str:
        return self.field.value or ""

    def write(self, text: str) -> None:
        """Put `text` in the place of what is typed."""
        self.field.value = text
        self._shell.draw(self.field)

    async def focus(self) -> None:
        await self.field.focus()

    async def _go(self) -> None:
        if self._answering:
            await _done(self._stop())
        else:
            await _done(self._send(self.text))

    async def _paste(self, event: ft.TextFieldPasteFilesEvent) -> None:
        for file in event.files:
            if file.bytes:
                await _done(self._pasted(file.bytes))

    def show_answering(self, answering: bool) -> None:
        """Whether the round button stops or sends."""
        if answering == self._answering:
            return
        self._answering = answering
        does = self._shell.say("chat.stop" if answering else "chat.send")
        icon = ft.Icons.STOP_ROUNDED if answering else ft.Icons.ARROW_UPWARD_ROUNDED
        self._go_button.icon, self._go_button.tooltip = looks.sign(icon, does, color=ft.Colors.ON_PRIMARY), does
        self._shell.draw(self._go_button)

    def show_gauge(self, share: float) -> None:
        """How full the context is."""
        self._gauge_button.visible = share > 0
        self._gauge.value = share
        self._gauge.color = ft.Colors.ERROR if share > 0.9 else ft.Colors.PRIMARY
        percent = round(100 * share)
        self._gauge_words.value = self._shell.say("mobile.context_short", percent=percent)
        self._gauge_said.label = self._shell.say("mobile.context", percent=percent)
        self._shell.draw(self._gauge_button)

    def show_draft(self, draft: Draft, thumbnails: Mapping[str, bytes]) -> None:
        """The pictures of the draft, and how far the model is with them."""
        say = self._shell.say
        self._above.visible = bool(draft.pictures)
        self._pictures.controls = [
            self._picture(name, number, len(draft.pictures), thumbnails.get(name))
            for number, name in enumerate(draft.pictures, 1)
        ]
        self._ring.visible = draft.reading and not draft.ready and draft.failed is None
        self._status.color = ft.Colors.ERROR if draft.failed else looks.FAINT
        if draft.failed:
            self._status.value = remarks.sentence(draft.failed, self._shell.language)
        elif draft.ready:
            self._status.value = say("chat.ready")
        elif draft.percent:
            self._status.value = say("chat.reading_picture_percent", percent=draft.percent)
        else:
            self._status.value = say("chat.reading_picture")
        self._shell.draw(self._above)

    def _picture(self, name: str, number: int, count: int, data: bytes | None) -> ft.Control:
        say = self._shell.say
        label = say("mobile.draft_picture", number=number, count=count)
        image: ft.Control = (
            looks.whole(data, 2 * _SIDE, _SIDE, radius=14, label=label)
            if data
            else ft.Icon(ft.Icons.IMAGE_OUTLINED, width=_SIDE)
        )
        remove = ft.IconButton(
            looks.sign(ft.Icons.CLOSE_ROUNDED, say("mobile.detach"), 14, ft.Colors.ON_INVERSE_SURFACE),
            bgcolor=ft.Colors.INVERSE_SURFACE,
            padding=0,
            size_constraints=ft.BoxConstraints(24, 24),
            width=24,
            height=24,
            tooltip=say("mobile.detach"),
            right=2,
            top=2,
            on_click=self._shell.on(lambda: self._detach(name)),
        )
        look = self._shell.on(lambda: self._open_picture(name))
        return ft.Stack(
            [
                ft.Container(
                    image,
                    on_click=look,
                    border_radius=14,
                    ink=True,
                    border=ft.Border.all(1, ft.Colors.OUTLINE_VARIANT),
                    tooltip=say("mobile.retouch"),
                ),
                remove,
            ],
            width=image.width,
            height=_SIDE,
        )


def _has_keyboard(page: ft.Page) -> bool:
    """Whether Enter sends: where keys are pressed and not touched."""
    return page.platform not in (ft.PagePlatform.ANDROID, ft.PagePlatform.IOS) or page.web


async def _done(outcome: Any) -> None:
    if hasattr(outcome, "__await__"):
        await outcome
