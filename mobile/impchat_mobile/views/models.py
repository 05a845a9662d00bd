"""The models: which are here, which could be had, what fits into memory, and which one answers.

In: the library of models. Out: a list with what can be done; the choice takes effect at once.
This file does not know how a model is run or fetched.
"""

from __future__ import annotations

import asyncio
from typing import Any

import flet as ft

from impchat import settings
from impchat.models import catalog, library
from impchat.models.library import Memory, Model
from impchat.texts import size
from impchat_mobile import looks
from impchat_mobile.shell import Screen, Shell
from impchat_mobile.tuning import tuning


class ModelsScreen(Screen):
    def __init__(self, shell: Shell, go: Any) -> None:
        self._shell = shell
        self._go = go

    def build(self) -> ft.View:
        self._list = ft.ListView(spacing=12, padding=ft.Padding.only(left=16, right=16, top=8, bottom=32), expand=True)
        return ft.View(
            [ft.SafeArea(looks.column(self._list, expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=looks.bar(self._shell.say("mobile.models")),
        )

    async def shown(self) -> None:
        await self._draw()

    async def _draw(self) -> None:
        shell, say = self._shell, self._shell.say
        found = await asyncio.to_thread(library.models, shell.app.data)
        memory = await asyncio.to_thread(library.memory)
        here = [self._model(model, memory) for model in found if model.bundle]
        there = [self._model(model, memory) for model in found if not model.bundle]
        self._list.controls = [
            looks.heading(say("mobile.models_here")),
            *here,
            looks.heading(say("mobile.models_there")),
            ft.Container(looks.faint(say("mobile.models_says"), size=13), padding=ft.Padding.symmetric(horizontal=20)),
            *there,
        ]
        shell.page.update()

    def _model(self, model: Model, memory: Memory | None) -> ft.Control:
        shell, say = self._shell, self._shell.say
        bundle, entry = model.bundle, model.entry
        runs = bundle is not None and bundle.id == shell.app.model
        facts = []
        if bundle:
            facts.append(size(bundle.size_bytes))
        elif entry and entry.bundle_bytes:
            facts.append(size(entry.bundle_bytes))
        if image := bundle.image.size if bundle else entry.image_size if entry else 0:
            facts.append(say("mobile.model_eyes", side=image))
        if needed := _memory_bytes(model):
            fits = memory.fits(needed) if memory else "unknown"
            facts.append(say(f"mobile.fits_{fits}", size=size(needed)))
        rows: list[ft.Control] = [
            ft.Row(
                [
                    ft.Text(model.name, size=16, weight=ft.FontWeight.W_600, expand=True),
                    *([_badge(say("models.state_running"))] if runs else []),
                ]
            ),
            looks.faint(" · ".join(facts), size=13),
        ]
        if model.problem:
            rows.append(ft.Text(model.problem.sentence(shell.language), size=13, color=ft.Colors.ERROR))
        licence = bundle.licence if bundle else entry.licence if entry else ""
        rows.append(looks.faint(say("mobile.model_terms", terms=licence)))
        if buttons := self._buttons(model, runs):
            rows.append(ft.Row(buttons, spacing=8, wrap=True))
        return looks.card(ft.Column(rows, spacing=6, tight=True))

    def _buttons(self, model: Model, runs: bool) -> list[ft.Control]:
        shell, say = self._shell, self._shell.say
        buttons: list[ft.Control] = []
        if model.bundle and not runs:
            buttons.append(ft.FilledTonalButton(say("mobile.run"), on_click=shell.on(lambda: self._choose(model))))
        if model.disk_bytes and not (model.bundle and model.bundle.demo):
            remove = shell.on(lambda: self._ask_remove(model))
            buttons.append(ft.TextButton(say("chat.delete"), on_click=remove))
        return buttons

    async def _choose(self, model: Model) -> None:
        """Let it answer from now on; the one before is put away."""
        shell = self._shell
        bundle = await asyncio.to_thread(library.choose, shell.app.data, model.id)
        await asyncio.to_thread(shell.app.run_with, bundle, tuning(shell.preferences))
        shell.tell(shell.say("models.runs", name=bundle.name))
        await self._draw()

    def _ask_remove(self, model: Model) -> None:
        shell = self._shell

        async def remove() -> None:
            if model.bundle and model.bundle.id == shell.app.model:
                demo = await asyncio.to_thread(library.resolve, shell.app.data, settings.DEMO_MODEL)
                await asyncio.to_thread(shell.app.run_with, demo, tuning(shell.preferences))
            freed = await asyncio.to_thread(lambda: library.remove(shell.app.data, model.id, chosen_too=True))
            shell.tell(shell.say("models.removed", name=model.name, size=size(freed)))
            await self._draw()

        words = ft.Text(shell.say("mobile.remove_says", size=size(model.disk_bytes)))
        shell.ask(
            shell.say("mobile.remove_title", name=model.name), words, shell.say("chat.delete"), remove, danger=True
        )


def _memory_bytes(model: Model) -> int:
    """About what a phone takes to run it; 0: not known."""
    bytes_ = model.bundle.size_bytes if model.bundle else model.entry.bundle_bytes if model.entry else 0
    tokens = model.bundle.context_tokens if model.bundle else model.entry.context_tokens if model.entry else 0
    return catalog.memory_bytes(model.entry, bytes_, tokens, settings.MOBILE_SLOTS) if bytes_ else 0


def _badge(text: str) -> ft.Control:
    return ft.Container(
        ft.Text(text, size=12, color=ft.Colors.ON_PRIMARY_CONTAINER),
        bgcolor=ft.Colors.PRIMARY_CONTAINER,
        border_radius=10,
        padding=ft.Padding.symmetric(horizontal=10, vertical=3),
    )
