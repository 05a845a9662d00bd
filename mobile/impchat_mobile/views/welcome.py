"""The welcome page of an empty conversation: an introduction, sample pictures, suggested questions.

In: whether the demo model answers. Out: a control that can be shown and hidden.
This file does not know conversations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import flet as ft

from impchat import paths, presentation
from impchat_mobile import theme
from impchat_mobile.app_shell import Shell
from impchat_mobile.guard import Handler

LOGO = (Path(__file__).parents[1] / "mark.svg").read_text(encoding="utf-8")


class Welcome:
    def __init__(
        self,
        shell: Shell,
        sample: Callable[[Path], Awaitable[None]],
        ask: Callable[[str], Awaitable[None]],
        models: Handler,
    ) -> None:
        say = shell.say
        self._shell = shell
        cards = {
            path: ft.Container(
                theme.picture(path.read_bytes(), 180, 104, radius=18, label=say("chat.sample", number=number)),
                on_click=shell.on(lambda path=path: sample(path)),
                border_radius=18,
                ink=True,
            )
            for number, path in enumerate(paths.samples(), 1)
        }  # fmt: skip
        self._photos = [card for path, card in cards.items() if path not in paths.samples(demo=True)]
        suggestions: list[ft.Control] = [
            ft.Container(
                ft.Text(text, size=14),
                padding=ft.Padding.symmetric(horizontal=14, vertical=9),
                border_radius=18,
                bgcolor=ft.Colors.SURFACE_CONTAINER_HIGH,
                ink=True,
                on_click=shell.on(lambda text=text: ask(text)),
            )
            for text in presentation.asks(shell.language)
        ]
        self._demo = theme.card(
            ft.Column(
                [
                    ft.Text(say("chat.demo"), weight=ft.FontWeight.W_600),
                    ft.Text(f"{say('chat.demo_says')} {say('mobile.demo_says')}", size=13, color=theme.MUTED),
                    ft.TextButton(say("mobile.get_real"), on_click=shell.on(models), style=ft.ButtonStyle(padding=0)),
                ],
                spacing=2,
                tight=True,
            ),
            padding=ft.Padding.only(left=16, right=16, top=12, bottom=4),
            margin=ft.Margin.only(left=16, right=16, top=20),
        )
        self._suggestions_heading = theme.heading(say("chat.asks"))
        self._suggestions = ft.Container(
            ft.Row(suggestions, spacing=8, wrap=True, run_spacing=8), padding=ft.Padding.only(left=16, right=16, top=6)
        )
        title = ft.Text(say("chat.welcome"), size=26, weight=ft.FontWeight.W_600, text_align=ft.TextAlign.CENTER)
        self._lead = ft.Text("", size=15, color=theme.MUTED, text_align=ft.TextAlign.CENTER)
        self.control = ft.Column(
            [
                ft.Container(height=28),
                ft.Container(
                    ft.Image(LOGO, width=72, height=72, exclude_from_semantics=True), alignment=ft.Alignment.CENTER
                ),
                ft.Container(
                    ft.Column([ft.Semantics(header=True, content=title), self._lead], spacing=8, tight=True,
                              horizontal_alignment=ft.CrossAxisAlignment.CENTER),
                    padding=ft.Padding.symmetric(horizontal=32, vertical=16),
                ),
                theme.heading(say("chat.samples")),
                ft.Container(
                    ft.Row([*cards.values()], spacing=10, scroll=ft.ScrollMode.HIDDEN),
                    padding=ft.Padding.only(left=16, top=6),
                ),
                self._suggestions_heading,
                self._suggestions,
                self._demo,
                ft.Container(height=12),
            ],
            spacing=0,
            expand=True,
            scroll=ft.ScrollMode.HIDDEN,
            horizontal_alignment=ft.CrossAxisAlignment.STRETCH,
        )  # fmt: skip

    def show_suggestions(self, shown: bool) -> None:
        """Show or hide the suggested questions, which are hidden while the chat screen shows them elsewhere."""
        if self._suggestions.visible != shown:
            self._suggestions.visible = self._suggestions_heading.visible = shown
            self._shell.draw(self.control)

    def show(self, shown: bool, demo: bool, server: str) -> None:
        """Show or hide the page. `server`: the name of the server that answers; "": the local model."""
        say = self._shell.say
        self._lead.value = say("mobile.welcome_lead_there", name=server) if server else say("mobile.welcome_lead")
        self.control.visible = shown
        self._demo.visible = demo
        for card in self._photos:
            card.visible = not demo
