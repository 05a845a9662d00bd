"""Eyes-free mode: the whole screen is the shutter; each photo is described in large text and aloud.

In: the open conversation, in which photos and descriptions are saved as usual. Out: a screen with one action.
The device's screen reader reads the text aloud. This file does not know how a photo is described.
"""

from __future__ import annotations

from contextlib import suppress

import flet as ft

from impchat.errors import ImpChatError
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell
from impchat_mobile.conversation import OpenConversation
from impchat_mobile.views.camera import CameraPreview


class EyesFreeScreen(Screen):
    def __init__(self, shell: Shell, current: OpenConversation) -> None:
        self._shell = shell
        self._current = current
        self._busy = False

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._preview = CameraPreview(shell)
        self._text = ft.Text(say("mobile.eyes_free_hint"), size=26, color=ft.Colors.WHITE, weight=ft.FontWeight.W_500)
        self._region = ft.Semantics(live_region=True, content=self._text)
        whole = ft.Container(
            ft.Stack(
                [
                    ft.Container(self._preview.control, left=0, right=0, top=0, bottom=0),
                    ft.Container(
                        ft.Column([self._region], scroll=ft.ScrollMode.AUTO, tight=True),
                        left=0,
                        right=0,
                        bottom=0,
                        padding=24,
                        bgcolor="#cc000000",
                    ),
                ],
                expand=True,
            ),
            expand=True,
            on_click=shell.on(self._take_photo),
            ink=True,
        )
        return ft.View(
            [ft.SafeArea(ft.Semantics(label=say("mobile.eyes_free_shutter"), button=True, content=whole), expand=True)],
            padding=0,
            bgcolor=ft.Colors.BLACK,
            appbar=ft.AppBar(
                title=ft.Text(say("mobile.eyes_free"), color=ft.Colors.WHITE),
                bgcolor=ft.Colors.BLACK,
                leading=theme.button(
                    ft.Icons.CLOSE_ROUNDED, say("mobile.back"), shell.on(shell.pop), color=ft.Colors.WHITE
                ),
            ),
        )

    async def shown(self) -> None:
        if not self._preview.ready:
            await self._preview.open()
            self._shell.page.update()

    async def _take_photo(self) -> None:
        """Take a photo and describe it. Does nothing while the previous photo is being described."""
        if self._busy or not self._preview.ready:
            return
        self._busy = True
        try:
            with suppress(Exception):  # not every device has haptic feedback
                await self._shell.haptics.medium_impact()
            data = await self._preview.take_photo()
            self._show_text(self._shell.say("chat.reading_picture"))
            await self._current.open(None)
            await self._current.attach(data or b"")
            await self._current.send(self._shell.say("mobile.describe"))
            await self._current.settled()
            await self._announce(self._current.messages[-1].text)
        except ImpChatError as error:
            await self._announce(self._shell.sentence(error))
        finally:
            self._busy = False

    def _show_text(self, text: str) -> None:
        self._text.value = text
        self._shell.draw(self._region)

    async def _announce(self, text: str) -> None:
        self._show_text(text)
        await self._shell.read_aloud(text, live=True)
