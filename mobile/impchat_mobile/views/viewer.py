"""Pictures at full size: zoom, swipe to the next one, share, save, and ask about a part of one.

In: the bytes of pictures. Out: a screen. This file does not know where they come from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import flet as ft

from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell

_MAX_RATIO = 40  # ratio of the sides beyond which a picture is too thin to see


class ViewerScreen(Screen):
    def __init__(
        self, shell: Shell, pictures: Sequence[bytes], first: int, ask_part: Callable[[bytes], Awaitable[None]] | None
    ) -> None:
        """`first`: index of the picture shown first. `ask_part`: takes a picture to ask about a part of it, or None."""
        self._shell = shell
        self._pictures = pictures
        self._index = first
        self._ask_part = ask_part

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._count = ft.Text(self._position(), size=15, color=ft.Colors.WHITE)
        pages = ft.PageView(
            [
                ft.InteractiveViewer(
                    self._picture(data, say("mobile.picture_of", number=number, count=len(self._pictures))),
                    min_scale=1,
                    max_scale=8,
                    boundary_margin=0,
                )
                for number, data in enumerate(self._pictures, 1)
            ],
            selected_index=self._index,
            expand=True,
            on_change=shell.on(self._page_changed),
        )
        white: dict[str, Any] = {"color": ft.Colors.WHITE}
        tools: list[ft.Control] = [
            theme.button(ft.Icons.SHARE_OUTLINED, say("mobile.share"), shell.on(self._share), **white),
            theme.button(ft.Icons.DOWNLOAD_ROUNDED, say("mobile.save_picture"), shell.on(self._save), **white),
        ]
        bottom: list[ft.Control] = []
        if self._ask_part:
            bottom = [
                ft.Container(
                    ft.FilledTonalButton(
                        say("mobile.ask_part"), icon=ft.Icons.CROP_ROUNDED, on_click=shell.on(self._part_tapped)
                    ),
                    alignment=ft.Alignment.CENTER,
                    padding=16,
                )
            ]
        return ft.View(
            [ft.SafeArea(ft.Column([pages, *bottom], spacing=0, expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.BLACK,
            appbar=ft.AppBar(
                title=self._count,
                bgcolor=ft.Colors.BLACK,
                color=ft.Colors.WHITE,
                actions=tools,
                leading=theme.button(ft.Icons.ARROW_BACK_ROUNDED, say("mobile.back"), shell.on(shell.pop), **white),
            ),
        )

    def _picture(self, data: bytes, label: str) -> ft.Control:
        """A picture as large as fits. A very long one is stretched, because otherwise it would be too thin to see."""
        sides = theme.size_of(data)
        fit = ft.BoxFit.FILL if max(sides) > _MAX_RATIO * min(sides) else ft.BoxFit.CONTAIN
        return ft.Image(data, fit=fit, semantics_label=label, gapless_playback=True)

    def _position(self) -> str:
        count = len(self._pictures)
        return self._shell.say("mobile.picture_of", number=self._index + 1, count=count) if count > 1 else ""

    def _page_changed(self, event: ft.Event[ft.PageView]) -> None:
        self._index = int(event.data or 0)
        self._count.value = self._position()
        self._shell.draw(self._count)

    @property
    def _file(self) -> tuple[str, str, bytes]:
        """File name, MIME type and bytes of the shown picture."""
        data = self._pictures[self._index]
        kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
        return f"impchat.{'jpg' if kind == 'jpeg' else kind}", f"image/{kind}", data

    async def _share(self) -> None:
        name, mime, data = self._file
        try:
            await self._shell.share.share_files([ft.ShareFile.from_bytes(data, mime_type=mime, name=name)])
        except Exception:  # noqa: BLE001 - this platform cannot share
            self._shell.notify(self._shell.say("mobile.no_share"))

    async def _save(self) -> None:
        name, _, data = self._file
        done = await self._shell.picker.save_file(file_name=name, file_type=ft.FilePickerFileType.IMAGE, src_bytes=data)
        if done or self._shell.page.web:
            self._shell.notify(self._shell.say("mobile.saved"))

    async def _part_tapped(self) -> None:
        assert self._ask_part
        data = self._pictures[self._index]
        await self._shell.pop()
        await self._ask_part(data)
