"""The camera screen: a preview, a shutter, and a button for the next lens.

In: a callback for the photo. Out: a screen that takes one photo and closes.
This file does not know conversations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import flet as ft
from flet_camera import Camera, CameraDescription, CameraLensDirection, ResolutionPreset

from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell
from impchat_mobile.guard import log


class Lens:
    """The cameras of the device: a preview, and photos."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._found: list[CameraDescription] = []
        self._at = 0
        self.ready = False
        self.camera = Camera(expand=True, preview_enabled=True)
        self.control = ft.Container(self.camera, expand=True, bgcolor=ft.Colors.BLACK)

    async def open(self) -> None:
        """Start the preview, or show that there is no camera."""
        try:
            self._found = await self.camera.get_available_cameras()
            backwards = [c for c in self._found if c.lens_direction == CameraLensDirection.BACK]
            self._at = self._found.index(backwards[0]) if backwards else 0
            await self._start()
        except Exception as exc:  # noqa: BLE001 - each platform has its own errors for a missing camera or permission
            log.warning("no camera: %s", type(exc).__name__)
            self.ready = False
        if not self.ready:
            words = ft.Text(
                self._shell.say("mobile.no_camera"), color=ft.Colors.WHITE, text_align=ft.TextAlign.CENTER, size=16
            )
            self.control.content = ft.Container(words, alignment=ft.Alignment.CENTER, padding=32)
            self._shell.draw(self.control)

    async def _start(self) -> None:
        if self._found:
            await self.camera.initialize(self._found[self._at], ResolutionPreset.HIGH, enable_audio=False)
            self.ready = True

    @property
    def several(self) -> bool:
        return len(self._found) > 1

    async def other(self) -> None:
        """Switch to the next lens."""
        self._at = (self._at + 1) % len(self._found)
        await self._start()

    async def photo(self) -> bytes | None:
        """Take a photo, JPEG or PNG. None if there is no camera."""
        return await self.camera.take_picture() if self.ready else None


class CameraScreen(Screen):
    def __init__(self, shell: Shell, take: Callable[[bytes], Awaitable[None]]) -> None:
        self._shell = shell
        self._take = take
        self._busy = False

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._lens = Lens(shell)
        white: dict[str, Any] = {"color": ft.Colors.WHITE, "size": 28}
        self._other = theme.button(
            ft.Icons.CAMERASWITCH_OUTLINED, say("mobile.other_lens"), shell.on(self._turn), **white
        )
        self._other.visible = False
        shutter = ft.Container(
            ft.Container(width=60, height=60, border_radius=30, bgcolor=ft.Colors.WHITE),
            width=76,
            height=76,
            border_radius=38,
            border=ft.Border.all(4, ft.Colors.WHITE),
            alignment=ft.Alignment.CENTER,
            ink=True,
            on_click=shell.on(self._shoot),
        )
        bar = ft.Row(
            [
                ft.Container(width=64),
                ft.Semantics(label=say("mobile.shutter"), button=True, content=shutter),
                ft.Container(self._other, width=64, alignment=ft.Alignment.CENTER),
            ],
            alignment=ft.MainAxisAlignment.SPACE_EVENLY,
        )
        return ft.View(
            [
                ft.SafeArea(
                    ft.Column([self._lens.control, ft.Container(bar, padding=20)], spacing=0, expand=True), expand=True
                )
            ],
            padding=0,
            bgcolor=ft.Colors.BLACK,
            appbar=ft.AppBar(
                bgcolor=ft.Colors.BLACK,
                color=ft.Colors.WHITE,
                title=ft.Text(say("mobile.camera"), color=ft.Colors.WHITE),
                leading=theme.button(
                    ft.Icons.CLOSE_ROUNDED, say("mobile.back"), shell.on(shell.pop), color=ft.Colors.WHITE
                ),
            ),
        )

    async def shown(self) -> None:
        if not self._lens.ready:
            await self._lens.open()
            self._other.visible = self._lens.several
            self._shell.page.update()

    async def _turn(self) -> None:
        await self._lens.other()

    async def _shoot(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            data = await self._lens.photo()
        finally:
            self._busy = False
        if data:
            await self._shell.pop()
            await self._take(data)
