"""The picture editor: crop and rotate a picture, and preview it as the model sees it.

In: the bytes of a picture. Out: the bytes of the changed one, passed to the caller's callbacks.
This file does not know conversations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import flet as ft

from impchat import images
from impchat.images import edit
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell
from impchat_mobile.crop import WHOLE, Frame

_MARGIN = 16  # pixels around the picture
_OTHER_HEIGHT = 380  # assumed height in pixels of the rest of the screen, until it has been measured
_PANEL = 330  # width in pixels of the tools next to the picture
_MIN_SIDE = 48  # minimum width and height of the picture in pixels
_STEP = 0.1  # fraction of the picture by which a tap moves the frame
_SHRINK = 0.8  # factor by which a tap shrinks the frame


class RetouchScreen(Screen):
    def __init__(
        self,
        shell: Shell,
        data: bytes,
        replace: Callable[[bytes], Awaitable[None]],
        add: Callable[[bytes], Awaitable[None]] | None,
    ) -> None:
        """`replace`: takes the changed picture. `add`: takes a part as a further picture; None: not offered."""
        self._shell = shell
        self._data = data
        self._replace, self._add = replace, add
        self._frame = Frame()
        self._is_rotated = False
        self._is_preview = False

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._room: tuple[float, float] | None = None  # width and height for the picture in pixels
        self._stage = ft.Container(
            expand=True, alignment=ft.Alignment.CENTER, padding=_MARGIN, on_size_change=shell.on(self._stage_resized)
        )
        self._hint = theme.muted("", size=13, text_align=ft.TextAlign.CENTER)
        turns = [
            theme.button(ft.Icons.ROTATE_LEFT_ROUNDED, say("mobile.turn_left"), shell.on(lambda: self._rotate(-1))),
            theme.button(ft.Icons.ROTATE_RIGHT_ROUNDED, say("mobile.turn_right"), shell.on(lambda: self._rotate(1))),
            theme.button(ft.Icons.CROP_FREE_ROUNDED, say("mobile.whole"), shell.on(self._whole)),
            self._frame_button(ft.Icons.ZOOM_IN_MAP_ROUNDED, "smaller", lambda frame: frame.scaled(_SHRINK)),
            self._frame_button(ft.Icons.ZOOM_OUT_MAP_ROUNDED, "larger", lambda frame: frame.scaled(1 / _SHRINK)),
        ]
        moves = [
            self._frame_button(ft.Icons.ARROW_BACK_ROUNDED, "left", lambda frame: frame.moved(-_STEP, 0)),
            self._frame_button(ft.Icons.ARROW_UPWARD_ROUNDED, "up", lambda frame: frame.moved(0, -_STEP)),
            self._frame_button(ft.Icons.ARROW_DOWNWARD_ROUNDED, "down", lambda frame: frame.moved(0, _STEP)),
            self._frame_button(ft.Icons.ARROW_FORWARD_ROUNDED, "right", lambda frame: frame.moved(_STEP, 0)),
        ]
        self._tools = ft.Column(
            [ft.Row(signs, alignment=ft.MainAxisAlignment.CENTER, spacing=0) for signs in (turns, moves)],
            spacing=0,
            tight=True,
        )
        done: list[ft.Control] = [ft.FilledButton(say("mobile.use"), on_click=shell.on(self._use), expand=True)]
        if self._add:
            done.insert(0, ft.FilledTonalButton(say("mobile.add_part"), on_click=shell.on(self._use_both), expand=True))
        switch = ft.SegmentedButton(
            [
                ft.Segment("edit", label=ft.Text(say("mobile.picture"))),
                ft.Segment("seen", label=ft.Text(say("mobile.seen"))),
            ],
            selected=["edit"],
            on_change=shell.on(self._switch),
            show_selected_icon=False,
        )
        self._below = ft.Column(
            [ft.Semantics(live_region=True, content=self._hint), self._tools, ft.Row(done, spacing=8)],
            spacing=8,
            tight=True,
            horizontal_alignment=ft.CrossAxisAlignment.STRETCH,
        )
        self._switch_line = ft.Row([switch], alignment=ft.MainAxisAlignment.CENTER)
        self._page = ft.Container(expand=True)
        self._lay_out()
        return ft.View(
            [ft.SafeArea(self._page, expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=theme.app_bar(say("mobile.retouch_title")),
        )

    def _lay_out(self) -> None:
        """Put the tools below the picture, or next to it on a low screen."""
        page = self._shell.page
        below = ft.Container(self._below, padding=ft.Padding.only(left=16, right=16, bottom=12))
        if (page.width or 0) > (page.height or 0) < theme.WIDE_HEIGHT:
            panel = ft.Column([self._switch_line, below], width=_PANEL, scroll=ft.ScrollMode.AUTO)
            self._page.content = ft.Row([self._stage, panel], spacing=0)
        else:
            column = ft.Column([self._switch_line, self._stage, below], expand=True, spacing=4)
            self._page.content = theme.column(column, expand=True)

    def _stage_resized(self, event: ft.LayoutSizeChangeEvent[ft.Container]) -> None:
        room = event.width - 2 * _MARGIN, event.height - 2 * _MARGIN
        if room != self._room:
            self._room = room
            self._shell.start(self._draw())

    def _frame_button(self, icon: ft.IconData, name: str, change: Callable[[Frame], Frame]) -> ft.Control:
        """A button that changes the frame, for users who cannot drag it."""

        def tapped() -> None:
            self._frame = change(self._frame)
            self._place_frame()
            self._shell.draw(self._stack, self._below)

        return theme.button(icon, self._shell.say(f"mobile.part_{name}"), self._shell.on(tapped))

    async def shown(self) -> None:
        await self._draw()

    def resized(self) -> None:
        self._lay_out()
        self._shell.page.update()

    async def _draw(self) -> None:
        if self._is_preview:
            await self._draw_preview()
        else:
            await self._draw_frame()
        self._tools.visible = not self._is_preview
        self._shell.page.update()

    async def _draw_frame(self) -> None:
        shell = self._shell
        width, height = (await asyncio.to_thread(images.decode, self._data)).size
        room = self._room or self._assumed_room()
        scale = min(room[0] / width, room[1] / height)
        self._size = max(width * scale, _MIN_SIDE), max(height * scale, _MIN_SIDE)
        small = await asyncio.to_thread(images.thumbnail, self._data, 1024)
        self._lines = ft.Container(border=ft.Border.all(2, ft.Colors.PRIMARY), border_radius=4)
        self._shades = [ft.Container(bgcolor="#99000000") for _ in range(4)]
        self._grips = [ft.Container(width=18, height=18, border_radius=9, bgcolor=ft.Colors.PRIMARY) for _ in range(4)]
        self._place_frame()
        picture = ft.Image(small, width=self._size[0], height=self._size[1], fit=ft.BoxFit.FILL,
                           semantics_label=shell.say("mobile.crop_hint"))  # fmt: skip
        self._stack = ft.Stack(
            [picture, *self._shades, self._lines, *self._grips], width=self._size[0], height=self._size[1]
        )
        self._stage.content = ft.GestureDetector(
            self._stack,
            drag_interval=30,
            on_pan_down=shell.on(self._pan_started),
            on_pan_update=shell.on(self._pan_updated),
        )

    def _assumed_room(self) -> tuple[float, float]:
        """The assumed room for the picture, until it has been measured."""
        page = self._shell.page
        return min(page.width or 400, theme.COLUMN_WIDTH) - 2 * _MARGIN, max(160, (page.height or 800) - _OTHER_HEIGHT)

    def _place_frame(self) -> None:
        width, height = self._size
        box = self._frame.box
        left, top, right, bottom = box.left * width, box.top * height, box.right * width, box.bottom * height
        places = [
            (0, 0, width, top),
            (0, bottom, width, height - bottom),
            (0, top, left, bottom - top),
            (right, top, width - right, bottom - top),
        ]
        for shade, (x, y, w, h) in zip(self._shades, places, strict=True):
            shade.left, shade.top, shade.width, shade.height = x, y, max(w, 0), max(h, 0)
        lines = self._lines
        lines.left, lines.top, lines.width, lines.height = left, top, right - left, bottom - top
        corners = [(left, top), (right, top), (left, bottom), (right, bottom)]
        for grip, (x, y) in zip(self._grips, corners, strict=True):
            grip.left, grip.top = min(max(x - 9, 0), width - 18), min(max(y - 9, 0), height - 18)
        self._hint.value = self._description()

    def _description(self) -> str:
        """The chosen part, as text."""
        box = self._frame.box
        if box == WHOLE:
            return self._shell.say("mobile.crop_hint")
        edges = {name: round(100 * getattr(box, name)) for name in ("left", "top", "right", "bottom")}
        return self._shell.say("mobile.crop_part", **edges)

    def _pan_started(self, event: ft.DragDownEvent[ft.GestureDetector]) -> None:
        self._frame = self._frame.grab(event.local_position.x / self._size[0], event.local_position.y / self._size[1])

    def _pan_updated(self, event: ft.DragUpdateEvent[ft.GestureDetector]) -> None:
        delta = event.local_delta or ft.Offset(0, 0)
        self._frame = self._frame.drag(delta.x / self._size[0], delta.y / self._size[1])
        self._place_frame()
        self._shell.draw(self._stack, self._below)

    async def _draw_preview(self) -> None:
        shell = self._shell
        bundle = shell.app.bundle
        if bundle is None:
            self._stage.content = ft.Text(shell.say("mobile.seen_unknown"), text_align=ft.TextAlign.CENTER)
            return
        rule = bundle.image
        data = await asyncio.to_thread(lambda: edit.seen(self._crop(), rule.size, rule.aspect))
        side = min(self._room or self._assumed_room())
        self._stage.content = ft.Image(
            data,
            width=side,
            height=side,
            fit=ft.BoxFit.CONTAIN,
            filter_quality=ft.FilterQuality.NONE,
            border_radius=8,
            semantics_label=shell.say("mobile.seen"),
        )
        share = round(100 * rule.tokens / shell.app.context_tokens)
        self._hint.value = shell.say("mobile.seen_says", side=rule.size, tokens=rule.tokens, percent=share)

    async def _switch(self, event: ft.Event[ft.SegmentedButton]) -> None:
        self._is_preview = "seen" in event.control.selected
        await self._draw()

    async def _rotate(self, quarters: int) -> None:
        self._data = await asyncio.to_thread(edit.turn, self._data, quarters)
        self._is_rotated = True
        self._frame = Frame()
        await self._draw()

    async def _whole(self) -> None:
        self._frame = Frame()
        await self._draw()

    def _crop(self) -> bytes:
        return self._data if self._frame.box == WHOLE else edit.cut(self._data, self._frame.box)

    async def _use(self) -> None:
        changed = self._is_rotated or self._frame.box != WHOLE or self._add is None
        data = await asyncio.to_thread(self._crop)
        await self._shell.pop()
        if changed:
            await self._replace(data)

    async def _use_both(self) -> None:
        assert self._add
        data = await asyncio.to_thread(self._crop)
        await self._shell.pop()
        if self._is_rotated:
            await self._replace(self._data)
        if self._frame.box != WHOLE:
            await self._add(data)
