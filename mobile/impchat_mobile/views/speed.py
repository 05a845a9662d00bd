"""The speed test: measures the four figures of the paper's table for the model in use.

In: the App. Out: a screen with a button that starts the test. This file does not know how the figures are measured.
"""

from __future__ import annotations

import asyncio

import flet as ft

from impchat import speedtest
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell


class SpeedScreen(Screen):
    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._figures = ft.Column(spacing=12, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
        self._progress = ft.ProgressBar(visible=False, border_radius=4)
        self._start_button = ft.FilledButton(say("mobile.measure"), on_click=shell.on(self._measure))
        page = ft.Column(
            [
                ft.Text(say("mobile.speed_explains"), color=theme.MUTED),
                self._start_button,
                self._progress,
                self._figures,
            ],
            spacing=16,
            scroll=ft.ScrollMode.AUTO,
            horizontal_alignment=ft.CrossAxisAlignment.STRETCH,
        )
        return ft.View(
            [ft.SafeArea(theme.column(ft.Container(page, padding=20), expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=theme.app_bar(say("mobile.speed")),
        )

    async def _measure(self) -> None:
        shell, say, app = self._shell, self._shell.say, self._shell.app
        self._start_button.disabled, self._progress.visible = True, True
        shell.page.update()
        try:
            found = await asyncio.to_thread(lambda: speedtest.run(app.engine))
        finally:
            self._start_button.disabled, self._progress.visible = False, False
            shell.page.update()
        rows = [
            ("T_VE", say("mobile.speed_vision"), f"{found.vision_s:.2f} s"),
            ("S_prompt", say("mobile.speed_prompt", tokens=found.prompt_tokens), f"{found.prompt_tokens_per_s:.1f} /s"),
            (
                "S_gen",
                say("mobile.speed_answer", tokens=found.generated_tokens),
                f"{found.generated_tokens_per_s:.1f} /s",
            ),
            ("T_total", say("mobile.speed_total"), f"{found.total_s:.2f} s"),
        ]
        self._figures.controls = [
            theme.card(
                ft.Row(
                    [
                        ft.Column(
                            [ft.Text(name, weight=ft.FontWeight.W_600), theme.muted(label, size=13)],
                            spacing=2,
                            expand=True,
                        ),
                        ft.Text(figure, size=22, weight=ft.FontWeight.W_600, color=ft.Colors.PRIMARY),
                    ]
                )
            )
            for name, label, figure in rows
        ]
        shell.page.update()
