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

_DRAW_S = 0.1  # after which an update has been drawn
_END_DISTANCE = 120  # maximum distance in pixels that still counts as the end


class MessageList:
    def __init__(self, shell: Shell, to_end: Handler) -> None:
        """`to_end`: called when the button is tapped."""
        self._shell = shell
        self._follows = True
        self._offset = 0.0  # the latest scroll offset
        self._scrolls_due = 0  # number of scrolls to the end that are still due
        self._is_scrolling = False
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
        self._scrolls_due = 2  # twice: the list estimates the length of what it has not drawn yet
        if self._follows and not self._is_scrolling:
            self._shell.start(self._scroll_until_end())

    async def _scroll_until_end(self) -> None:
        self._is_scrolling = True
        try:
            while self._scrolls_due and self._follows:
                self._scrolls_due -= 1
                await asyncio.sleep(_DRAW_S)
                await self._scroll_once()
        finally:
            self._is_scrolling = False

    async def _scroll_once(self) -> None:
        if self._follows and self.control.visible and is_mounted(self.list):
            await self.list.scroll_to(offset=-1, duration=0)

    def _scrolled(self, event: ft.OnScrollEvent) -> None:
        """Stop following only if the offset decreased: a list that grows also gets farther from its end."""
        if event.max_scroll_extent - event.pixels <= _END_DISTANCE:
            self._follow(True)
        elif event.pixels < self._offset:
            self._follow(False)
        self._offset = event.pixels

    def _follow(self, follows: bool) -> None:
        self._follows = follows
        if self._button.visible == follows:
            self._button.visible = not follows
            self._shell.draw(self._button)
