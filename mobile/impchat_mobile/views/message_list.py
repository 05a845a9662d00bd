"""The list of messages: it stays at its end while the person is there, and where they went otherwise.

In: the messages' controls, and that they grew. Out: the list, with a button that leads to its end.
Flet's own `auto_scroll` is not used: switched on anew it shows the beginning of a long list (Flet 1.0.5).
This file does not know messages.
"""

from __future__ import annotations

import asyncio

import flet as ft

from impchat_mobile import theme
from impchat_mobile.app_shell import Shell, is_mounted
from impchat_mobile.guard import Handler

_FRAMES_S = 0.1  # in which what was sent to the screen is on it
_NEAR = 120  # pixels from the end that count as being there


class Tail:
    def __init__(self, shell: Shell, to_end: Handler) -> None:
        """`to_end`: what the button does."""
        self._shell = shell
        self._follows = True
        self._pixels = 0.0  # where the list stood last
        self._jumps = 0  # to the end, that are still to be made
        self._keeping_up = False
        self.list = ft.ListView(
            expand=True,
            spacing=12,
            padding=ft.Padding.only(left=16, right=16, top=12, bottom=24),
            scroll_interval=100,
            on_scroll=shell.on(self._scrolled),
        )
        self._button = ft.IconButton(
            theme.sign(ft.Icons.ARROW_DOWNWARD_ROUNDED, shell.say("mobile.latest")),
            tooltip=shell.say("mobile.latest"),
            visible=False,
            bottom=8,
            right=12,
            bgcolor=ft.Colors.SURFACE_CONTAINER_HIGHEST,
            on_click=shell.on(to_end),
        )
        self.control = ft.Stack([self.list, self._button], expand=True)

    def go(self) -> None:
        """To the end, and stay there."""
        self._follow(True)
        self.grew()

    def grew(self) -> None:
        """Its end is somewhere else now, or will be with what is just being drawn."""
        self._jumps = 2  # the first one finds out how long the list is, which is known only where it was drawn
        if self._follows and not self._keeping_up:
            self._shell.start(self._keep_up())

    async def _keep_up(self) -> None:
        self._keeping_up = True
        try:
            while self._jumps and self._follows:
                self._jumps -= 1
                await asyncio.sleep(_FRAMES_S)
                await self._jump()
        finally:
            self._keeping_up = False

    async def _jump(self) -> None:
        if self._follows and self.control.visible and is_mounted(self.list):
            await self.list.scroll_to(offset=-1, duration=0)

    def _scrolled(self, event: ft.OnScrollEvent) -> None:
        """Only a person goes up; a list that grew is further from its end too."""
        if event.max_scroll_extent - event.pixels <= _NEAR:
            self._follow(True)
        elif event.pixels < self._pixels:
            self._follow(False)
        self._pixels = event.pixels

    def _follow(self, follows: bool) -> None:
        self._follows = follows
        if self._button.visible == follows:
            self._button.visible = not follows
            self._shell.draw(self._button)
