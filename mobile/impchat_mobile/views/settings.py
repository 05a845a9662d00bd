"""The settings: appearance, language, sampling, how the model is run, lock, storage, and links to other screens.

In: the preferences. Out: changed preferences, which take effect at once.
This file does not know what a preference changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import flet as ft

from impchat import applock, machine, settings, storage
from impchat.errors import ImpChatError
from impchat.models import catalog
from impchat.texts import size
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell
from impchat_mobile.guard import Handler
from impchat_mobile.tuning import memory_bytes, run

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator

_SLIDERS = (  # name, minimum, maximum, number of steps
    ("temperature", 0.0, 1.5, 30),
    ("max_tokens", 64, 2048, 31),
    ("top_p", 0.05, 1.0, 19),
    ("top_k", 0, 200, 40),
    ("min_p", 0.0, 0.5, 20),
    ("repeat_penalty", 0.8, 1.5, 14),
)
_INTEGERS = ("max_tokens", "top_k")
_MAX_THREADS = 8


class SettingsScreen(Screen):
    def __init__(self, shell: Shell, navigator: Navigator) -> None:
        self._shell = shell
        self._navigator = navigator

    def build(self) -> ft.View:
        say = self._shell.say
        self._context_hint = theme.muted("", size=13)
        self._sampling = ft.Column(spacing=0, tight=True)
        self._fill_sampling()
        self._describe_context()
        page = ft.ListView(
            [
                theme.heading(say("mobile.looks")),
                self._row(say("mobile.theme"), self._themes()),
                self._row(say("mobile.language"), self._languages()),
                theme.heading(say("mobile.answers")),
                self._sampling,
                theme.heading(say("mobile.model")),
                *self._model(),
                theme.heading(say("mobile.privacy")),
                self._lock(),
                theme.heading(say("mobile.storage")),
                self._storage(),
                theme.heading(say("mobile.about")),
                self._tile(
                    ft.Icons.SPEED_ROUNDED, say("mobile.speed"), say("mobile.speed_says"), self._navigator.speed
                ),
                self._tile(ft.Icons.INFO_OUTLINE, say("mobile.about"), say("mobile.about_says"), self._navigator.about),
            ],
            padding=ft.Padding.only(bottom=32),
            expand=True,
        )
        return ft.View(
            [ft.SafeArea(theme.column(page, expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=theme.app_bar(say("mobile.settings")),
        )

    async def shown(self) -> None:
        await self._measure()

    def _row(self, label: str, control: ft.Control) -> ft.Control:
        return ft.Container(
            ft.Column(
                [ft.Text(label), control], spacing=8, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH
            ),
            padding=ft.Padding.symmetric(horizontal=20, vertical=8),
        )

    def _tile(self, icon: ft.IconData, title: str, subtitle: str | ft.Text, do: Handler) -> ft.Control:
        return ft.ListTile(
            leading=ft.Icon(icon, color=theme.MUTED),
            title=ft.Text(title),
            subtitle=theme.muted(subtitle, size=13) if isinstance(subtitle, str) else subtitle,
            trailing=ft.Icon(ft.Icons.CHEVRON_RIGHT_ROUNDED, color=theme.MUTED),
            on_click=self._shell.on(do),
        )

    # Appearance

    def _segments(self, names: list[tuple[str, str]], chosen: str, do: Callable[[str], Awaitable[None]]) -> ft.Control:
        kept = [chosen or "-"]

        async def changed() -> None:
            nonlocal kept
            selected = list(buttons.selected)
            try:
                await do(selected[0])
            except ImpChatError:
                buttons.selected = kept
                self._shell.draw(buttons)
                raise
            kept = selected

        buttons = ft.SegmentedButton(
            [ft.Segment(value or "-", label=ft.Text(label)) for value, label in names],
            selected=kept,
            on_change=self._shell.on(changed),
            show_selected_icon=False,
        )
        return buttons

    def _themes(self) -> ft.Control:
        async def choose(theme: str) -> None:
            await self._shell.prefer(theme=theme)
            await self._shell.redraw()

        names = [(name, self._shell.say(f"mobile.theme_{name}")) for name in ("system", "light", "dark")]
        return self._segments(names, self._shell.preferences.theme, choose)

    def _languages(self) -> ft.Control:
        async def choose(language: str) -> None:
            await self._shell.prefer(language="" if language == "-" else language)
            await self._shell.redraw()

        say = self._shell.say
        names = [("", say("mobile.theme_system")), ("en", say("language.en")), ("zh", say("language.zh"))]
        return self._segments(names, self._shell.preferences.language, choose)

    # Answers

    def _fill_sampling(self) -> None:
        shell = self._shell
        first = [self._slider(*row) for row in _SLIDERS[:2]]
        rest = [self._slider(*row) for row in _SLIDERS[2:]]
        reset = ft.TextButton(shell.say("mobile.recommended"), on_click=shell.on(self._reset))
        more = ft.ExpansionTile(
            shell.say("mobile.advanced"),
            controls=[*rest, ft.Container(reset, padding=ft.Padding.only(left=12))],
            expanded_cross_axis_alignment=ft.CrossAxisAlignment.START,
            shape=ft.RoundedRectangleBorder(),
            tile_padding=ft.Padding.symmetric(horizontal=20),
        )
        self._sampling.controls = [*first, more]

    def _slider(self, name: str, low: float, high: float, divisions: int) -> ft.Control:
        shell = self._shell
        now = getattr(shell.preferences.sampling_of(shell.app.sampling), name)
        value = ft.Text(_format(name, now), color=theme.MUTED)

        def moved(event: ft.Event[ft.Slider]) -> None:
            value.value = _format(name, event.control.value or 0)
            shell.draw(value)

        async def settled(event: ft.Event[ft.Slider]) -> None:
            chosen = event.control.value or 0
            number = round(chosen) if name in _INTEGERS else round(chosen, 3)
            await shell.prefer(sampling={**shell.preferences.sampling, name: number})

        label = shell.say(f"mobile.sampling_{name}")
        slider = ft.Slider(
            value=min(max(now, low), high),
            min=low,
            max=high,
            divisions=divisions,
            padding=ft.Padding.symmetric(horizontal=4, vertical=4),
            on_change=shell.on(moved),
            on_change_end=shell.on(settled),
        )
        words = ft.Row([ft.Text(label, expand=True), value])
        hint = theme.muted(shell.say(f"help.sampling.{name}"))
        return ft.Container(
            ft.Column([words, hint, ft.Semantics(label=label, content=slider)], spacing=2, tight=True,
                      horizontal_alignment=ft.CrossAxisAlignment.STRETCH),
            padding=ft.Padding.symmetric(horizontal=20, vertical=6),
        )  # fmt: skip

    async def _reset(self) -> None:
        await self._shell.prefer(sampling={})
        self._fill_sampling()
        self._shell.draw(self._sampling)

    # How the model is run

    def _model(self) -> list[ft.Control]:
        shell, say = self._shell, self._shell.say
        app = shell.app
        most = app.bundle.context_tokens if app.bundle else app.context_tokens
        lengths = [n for n in settings.MOBILE_CONTEXTS if n < most] + [most]
        contexts = [(str(n), f"{n}") for n in lengths]
        threads = [("", say("mobile.automatic"))] + [(str(n), str(n)) for n in (1, 2, 4, 6, _MAX_THREADS)]

        async def context(value: str) -> None:
            await self._tune(context_tokens=None if int(value) == most else int(value))

        async def thread(value: str) -> None:
            await self._tune(threads=None if value == "-" else int(value))

        chosen = shell.preferences.threads
        models = self._tile(
            ft.Icons.MEMORY_ROUNDED, say("mobile.models"), app.bundle.name if app.bundle else "", self._navigator.models
        )
        typed = ft.Container(
            ft.Column(
                [
                    ft.Switch(
                        value=app.reads_typed,
                        label=say("mobile.reads_typed"),
                        label_position=ft.LabelPosition.LEFT,
                        on_change=shell.on(self._reads_typed_changed),
                    ),
                    theme.muted(say("mobile.reads_typed_says"), size=13),
                ],
                tight=True,
                spacing=2,
            ),
            padding=ft.Padding.symmetric(horizontal=20, vertical=4),
        )
        if shell.shares:
            return [models, typed]
        return [
            models,
            typed,
            self._row(say("mobile.context_length"), self._segments(contexts, str(app.context_tokens), context)),
            ft.Container(self._context_hint, padding=ft.Padding.symmetric(horizontal=20)),
            self._row(say("mobile.threads"), self._segments(threads, str(chosen) if chosen else "", thread)),
        ]

    async def _reads_typed_changed(self, event: ft.Event[ft.Switch]) -> None:
        self._shell.app.reads_typed = bool(event.control.value)
        await self._shell.prefer(reads_typed=self._shell.app.reads_typed)

    async def _tune(self, **changes: Any) -> None:
        shell = self._shell
        if shell.app.bundle:
            await asyncio.to_thread(run, shell.app, shell.app.bundle, replace(shell.preferences, **changes))
        await shell.prefer(**changes)
        self._describe_context()
        shell.draw(self._context_hint)

    def _describe_context(self) -> None:
        say, app = self._shell.say, self._shell.app
        tokens = app.context_tokens
        text = say("mobile.context_says", words=round(tokens * 0.7 / 50) * 50)
        entry = catalog.ENTRIES.get(app.model)
        memory = machine.memory()
        if app.bundle and entry and entry.cache_bytes:
            needed = memory_bytes(app.tuning, entry, app.bundle.size_bytes, tokens)
            fits = memory.fits(needed) if memory else "unknown"
            text += " " + say(f"models.memory_{fits}", size=size(needed))
        self._context_hint.value = text

    # Lock

    def _lock(self) -> ft.Control:
        shell, say = self._shell, self._shell.say
        self._lock_switch = ft.Switch(
            value=applock.is_set(shell.app.data),
            label=say("mobile.lock"),
            label_position=ft.LabelPosition.LEFT,
            on_change=shell.on(self._lock_changed),
        )
        return ft.Container(
            ft.Column([self._lock_switch, theme.muted(say("mobile.lock_says"), size=13)], tight=True, spacing=2),
            padding=ft.Padding.symmetric(horizontal=20, vertical=4),
        )

    async def _lock_changed(self) -> None:
        from impchat_mobile.views.lock import LockScreen, PinScreen

        shell = self._shell
        turn_on = bool(self._lock_switch.value)
        self._show_lock()

        async def pin_set() -> None:
            self._show_lock()
            shell.notify(shell.say("mobile.lock_on"))

        async def unlocked() -> None:
            await asyncio.to_thread(applock.remove, shell.app.data)
            await shell.pop()
            self._show_lock()

        await shell.push(PinScreen(shell, pin_set) if turn_on else LockScreen(shell, unlocked, can_leave=True))

    def _show_lock(self) -> None:
        self._lock_switch.value = applock.is_set(self._shell.app.data)
        self._shell.draw(self._lock_switch)

    # Storage

    def _storage(self) -> ft.Control:
        """The section about storage. `_measure` adds the figures later; the buttons work from the beginning."""
        shell, say = self._shell, self._shell.say
        self._sizes = {name: theme.muted("…", size=13) for name in ("chats", "pictures", "kept", "deleted", "models")}
        clear = ft.TextButton(say("mobile.clear"), on_click=shell.on(self._ask_clear))
        self._storage_tiles = ft.Column(
            [
                ft.ListTile(
                    leading=ft.Icon(ft.Icons.CHAT_BUBBLE_OUTLINE_ROUNDED, color=theme.MUTED),
                    title=ft.Text(say("mobile.chats")),
                    subtitle=self._sizes["chats"],
                    trailing=clear,
                ),
                ft.ListTile(
                    leading=ft.Icon(ft.Icons.IMAGE_OUTLINED, color=theme.MUTED),
                    title=ft.Text(say("mobile.pictures")),
                    subtitle=self._sizes["pictures"],
                ),
                ft.ListTile(
                    leading=ft.Icon(ft.Icons.BOLT_ROUNDED, color=theme.MUTED),
                    title=ft.Text(say("mobile.kept")),
                    subtitle=self._sizes["kept"],
                    trailing=ft.TextButton(say("mobile.clear"), on_click=shell.on(self._clear_kept)),
                ),
                self._tile(
                    ft.Icons.DELETE_OUTLINE_ROUNDED,
                    say("mobile.deleted"),
                    self._sizes["deleted"],
                    self._navigator.deleted,
                ),
                self._tile(
                    ft.Icons.MEMORY_ROUNDED, say("mobile.models"), self._sizes["models"], self._navigator.models
                ),
            ],
            spacing=0,
            tight=True,
        )
        return self._storage_tiles

    async def _measure(self) -> None:
        shell = self._shell
        found = await asyncio.to_thread(storage.used, shell.app)
        self._sizes["chats"].value = size(found.conversations)
        self._sizes["pictures"].value = size(found.pictures)
        self._sizes["kept"].value = size(found.kept)
        self._sizes["deleted"].value = shell.say("mobile.count", count=found.deleted)
        self._sizes["models"].value = size(found.models)
        shell.draw(self._storage_tiles)

    async def _clear_kept(self) -> None:
        await asyncio.to_thread(storage.clear_kept, self._shell.app)
        await self._measure()

    def _ask_clear(self) -> None:
        shell = self._shell

        async def clear() -> None:
            await self._navigator.leave_conversation()
            await asyncio.to_thread(storage.clear_conversations, shell.app)
            await self._measure()

        words = ft.Text(shell.say("mobile.clear_says"))
        shell.confirm(shell.say("mobile.clear_title"), words, shell.say("mobile.clear"), clear, danger=True)


def _format(name: str, value: float) -> str:
    return str(round(value)) if name in _INTEGERS else f"{value:.2f}"
