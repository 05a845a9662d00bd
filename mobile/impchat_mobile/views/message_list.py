"""The list of messages: it follows its end, unless the user has scrolled up.

In: the messages' controls, and a call whenever they grow. Out: the list, with a button that scrolls to its end.
Flet's `auto_scroll` is not used: when it is turned on again, it shows the beginning of a long list (Flet 1.0.5).
This file does not know messages.
"""

from __future__ import annotations

import asyncio

import flet as ft

from impchat_mobile import theme
from impchat_mobile.app_shell import Shell, is_mounted
from impchat_mobile.guard import Handler

_FRAMES_S = 0.1  # after which an update has been drawn
_NEAR = 120  # maximum distance in pixels that still counts as the end


class MessageList:
    def __init__(self, shell: Shell, to_end: Handler) -> None:
        """`to_end`: called when the button is tapped."""
        self._shell = shell
        self._follows = True
        self._pixels = 0.0  # the latest scroll offset
        self._jumps = 0  # number of scrolls to the end that are still due
        self._keeping_up = False
        self.list = ft.ListView(
            expand=True,
            spacing=12,
            padding=ft.Padding.only(left=16, right=16, top=12, bottom=24),
            scroll_interval=100,
            on_scroll=shell.on(self._scrolled),
        )
        self._button = ft.IconButton(
            theme.icon(ft.Icons.ARROW_DOWNWARD_ROUNDED, shell.say("mobile.latest")),
            tooltip=shell.say("mobile.latest"),
            visible=False,
            bottom=8,
            right=12,
            bgcolor=ft.Colors.SURFACE_CONTAINER_HIGHEST,
            on_click=shell.on(to_end),
        )
        self.control = ft.Stack([self.list, self._button], expand=True)

    def scroll_to_end(self) -> None:
        """Scroll to the end and follow it."""
        self._follow(True)
        self.grew()

    def grew(self) -> None:
        """The list has become longer, or will with the update that is being drawn."""
        self._jumps = 2  # twice: the list estimates the length of what it has not drawn yet
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
        """Stop following only if the offset decreased: a list that grows also gets farther from its end."""
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
