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


class CameraPreview:
    """The cameras of the device: a preview, and photos."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._cameras: list[CameraDescription] = []
        self._index = 0
        self.ready = False
        self.camera = Camera(expand=True, preview_enabled=True)
        self.control = ft.Container(self.camera, expand=True, bgcolor=ft.Colors.BLACK)

    async def open(self) -> None:
        """Start the preview, or show that there is no camera."""
        try:
            self._cameras = await self.camera.get_available_cameras()
            back = [c for c in self._cameras if c.lens_direction == CameraLensDirection.BACK]
            self._index = self._cameras.index(back[0]) if back else 0
            await self._start()
        except Exception as exc:  # noqa: BLE001 - each platform has its own errors for a missing camera or permission
            log.warning("no camera: %s", type(exc).__name__)
            self.ready = False
        if not self.ready:
            message = ft.Text(
                self._shell.say("mobile.no_camera"), color=ft.Colors.WHITE, text_align=ft.TextAlign.CENTER, size=16
            )
            self.control.content = ft.Container(message, alignment=ft.Alignment.CENTER, padding=32)
            self._shell.draw(self.control)

    async def _start(self) -> None:
        if self._cameras:
            await self.camera.initialize(self._cameras[self._index], ResolutionPreset.HIGH, enable_audio=False)
            self.ready = True

    @property
    def has_several(self) -> bool:
        return len(self._cameras) > 1

    async def switch_lens(self) -> None:
        """Switch to the next lens."""
        self._index = (self._index + 1) % len(self._cameras)
        await self._start()

    async def take_photo(self) -> bytes | None:
        """Take a photo, JPEG or PNG. None if there is no camera."""
        return await self.camera.take_picture() if self.ready else None


class CameraScreen(Screen):
    def __init__(self, shell: Shell, on_photo: Callable[[bytes], Awaitable[None]]) -> None:
        self._shell = shell
        self._on_photo = on_photo
        self._busy = False

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._preview = CameraPreview(shell)
        white: dict[str, Any] = {"color": ft.Colors.WHITE, "size": 28}
        self._switch = theme.button(
            ft.Icons.CAMERASWITCH_OUTLINED, say("mobile.other_lens"), shell.on(self._switch_lens), **white
        )
        self._switch.visible = False
        shutter = ft.Container(
            ft.Container(width=60, height=60, border_radius=30, bgcolor=ft.Colors.WHITE),
            width=76,
            height=76,
            border_radius=38,
            border=ft.Border.all(4, ft.Colors.WHITE),
            alignment=ft.Alignment.CENTER,
            ink=True,
            on_click=shell.on(self._take_photo),
        )
        bar = ft.Row(
            [
                ft.Container(width=64),
                ft.Semantics(label=say("mobile.shutter"), button=True, content=shutter),
                ft.Container(self._switch, width=64, alignment=ft.Alignment.CENTER),
            ],
            alignment=ft.MainAxisAlignment.SPACE_EVENLY,
        )
        return ft.View(
            [
                ft.SafeArea(
                    ft.Column([self._preview.control, ft.Container(bar, padding=20)], spacing=0, expand=True),
                    expand=True,
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
        if not self._preview.ready:
            await self._preview.open()
            self._switch.visible = self._preview.has_several
            self._shell.page.update()

    async def _switch_lens(self) -> None:
        await self._preview.switch_lens()

    async def _take_photo(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            data = await self._preview.take_photo()
        finally:
            self._busy = False
        if data:
            await self._shell.pop()
            await self._on_photo(data)
