"""The app lock: one screen that asks for the PIN, and one that sets it.

In: a callback for the right PIN. Out: a screen that cannot be left without it.
This file does not know how a PIN is stored and checked; `impchat.applock` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import flet as ft

from impchat import applock, settings
from impchat.errors import SettingsError
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell
from impchat_mobile.views.welcome import LOGO

_KEYS = ("123", "456", "789", "<0>")


class PinPad:
    """A PIN pad: a dot for each typed digit, and the keys. `done` is called with the digits."""

    def __init__(self, shell: Shell, title: str, done: Callable[[str], Awaitable[None]]) -> None:
        self._shell = shell
        self._typed = ""
        self._done = done
        self.title = ft.Text(title, size=18, text_align=ft.TextAlign.CENTER)
        self.problem = ft.Text("", size=14, color=ft.Colors.ERROR, text_align=ft.TextAlign.CENTER)
        self._dots = ft.Text("", size=30, text_align=ft.TextAlign.CENTER)
        self._dots_region = ft.Semantics(label="", content=self._dots, exclude_semantics=True)
        self.control = ft.Column(
            [
                self.title,
                self._dots_region,
                ft.Semantics(live_region=True, content=self.problem),
                *[ft.Row([self._key(key) for key in row], alignment=ft.MainAxisAlignment.CENTER) for row in _KEYS],
            ],
            horizontal_alignment=ft.CrossAxisAlignment.CENTER,
            spacing=14,
            tight=True,
        )
        self._draw()

    def _key(self, key: str) -> ft.Control:
        say, on = self._shell.say, self._shell.on
        size: dict[str, Any] = {"width": 76, "height": 76}
        if key == "<":
            return ft.IconButton(
                theme.icon(ft.Icons.BACKSPACE_OUTLINED, say("mobile.erase")),
                tooltip=say("mobile.erase"),
                on_click=on(self._erase),
                **size,
            )
        if key == ">":
            return ft.IconButton(
                theme.icon(ft.Icons.CHECK_ROUNDED, say("mobile.enter"), color=ft.Colors.ON_PRIMARY),
                tooltip=say("mobile.enter"),
                on_click=on(self._enter),
                bgcolor=ft.Colors.PRIMARY,
                **size,
            )
        return ft.FilledTonalButton(
            ft.Text(key, size=26),
            on_click=on(lambda: self._press(key)),
            style=ft.ButtonStyle(shape=ft.CircleBorder()),
            **size,
        )

    def restart(self, title: str, problem: str = "") -> None:
        """Clear the digits and show `title` and `problem`."""
        self.title.value, self.problem.value, self._typed = title, problem, ""
        self._draw()
        self._shell.draw(self.control)

    def _draw(self) -> None:
        self._dots.value = "•" * len(self._typed) or "· · · ·"
        self._dots_region.label = self._shell.say("mobile.digits", count=len(self._typed))

    def _press(self, key: str) -> None:
        if len(self._typed) < settings.PIN_DIGITS[1]:
            self._typed += key
        self._draw()
        self._shell.draw(self._dots_region)

    def _erase(self) -> None:
        self._typed = self._typed[:-1]
        self._draw()
        self._shell.draw(self._dots_region)

    async def _enter(self) -> None:
        typed, self._typed = self._typed, ""
        self._draw()
        self._shell.draw(self._dots_region)
        await self._done(typed)


class LockScreen(Screen):
    """Asks for the PIN and calls `unlocked` once it is right."""

    def __init__(self, shell: Shell, unlocked: Callable[[], Awaitable[None]], can_leave: bool = False) -> None:
        """`can_leave`: the user may go back without the PIN."""
        self._shell = shell
        self._unlocked = unlocked
        self._can_leave = can_leave

    def build(self) -> ft.View:
        shell = self._shell
        self._pad = PinPad(shell, shell.say("mobile.locked"), self._check)
        mark = ft.Image(LOGO, width=56, height=56, exclude_from_semantics=True)
        page = ft.Column(
            [mark, self._pad.control],
            alignment=ft.MainAxisAlignment.CENTER,
            horizontal_alignment=ft.CrossAxisAlignment.CENTER,
            spacing=20,
            expand=True,
            scroll=ft.ScrollMode.AUTO,
        )
        box = ft.Container(page, alignment=ft.Alignment.CENTER, expand=True)
        bar = theme.app_bar(shell.say("mobile.lock")) if self._can_leave else None
        return ft.View([ft.SafeArea(box, expand=True)], bgcolor=ft.Colors.SURFACE, can_pop=self._can_leave, appbar=bar)

    async def _check(self, typed: str) -> None:
        shell = self._shell
        try:
            await asyncio.to_thread(applock.check, shell.app.data, typed)
        except SettingsError as exc:
            self._pad.restart(shell.say("mobile.locked"), shell.sentence(exc))
            return
        await self._unlocked()


class PinScreen(Screen):
    """Sets a PIN, which the user types twice. Calls `done` afterwards."""

    def __init__(self, shell: Shell, done: Callable[[], Awaitable[None]]) -> None:
        self._shell = shell
        self._done = done
        self._first = ""

    def build(self) -> ft.View:
        shell = self._shell
        self._pad = PinPad(shell, shell.say("mobile.pin_new"), self._typed)
        page = ft.Container(self._pad.control, alignment=ft.Alignment.CENTER, expand=True)
        return ft.View(
            [ft.SafeArea(page, expand=True)], bgcolor=ft.Colors.SURFACE, appbar=theme.app_bar(shell.say("mobile.lock"))
        )

    async def _typed(self, pin: str) -> None:
        shell = self._shell
        if not self._first:
            try:
                applock.examine(pin)
            except SettingsError as exc:
                self._pad.restart(shell.say("mobile.pin_new"), shell.sentence(exc))
                return
            self._first = pin
            self._pad.restart(shell.say("mobile.pin_again"))
            return
        first, self._first = self._first, ""
        if first != pin:
            self._pad.restart(shell.say("mobile.pin_new"), shell.say("mobile.pin_differs"))
            return
        await asyncio.to_thread(applock.set_pin, shell.app.data, pin)
        await shell.pop()
        await self._done()
