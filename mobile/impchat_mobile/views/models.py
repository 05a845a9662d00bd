"""The models: which are here, which could be had, what fits into memory, and which one answers.

In: the library of models. Out: a list with what can be done; the choice takes effect at once.
This file does not know how a model is run or fetched.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import flet as ft

from impchat import device, settings
from impchat.device import Offer
from impchat.errors import ImpChatError
from impchat.models import catalog, copying, library
from impchat.models.catalog import Entry
from impchat.models.copying import Source
from impchat.models.library import Memory, Model
from impchat.servers import Server
from impchat.texts import size
from impchat_mobile import looks
from impchat_mobile.copies import Copy
from impchat_mobile.shell import Screen, Shell
from impchat_mobile.tuning import memory_bytes, tuned


class ModelsScreen(Screen):
    def __init__(self, shell: Shell, go: Any) -> None:
        self._shell = shell
        self._go = go
        self._offers: dict[str, list[Offer]] = {}  # id of a server -> what it has
        self._away: dict[str, ImpChatError] = {}
        self._rows: dict[str, CopyRow] = {}

    def build(self) -> ft.View:
        self._list = ft.ListView(spacing=12, padding=ft.Padding.only(left=16, right=16, top=8, bottom=32), expand=True)
        return ft.View(
            [ft.SafeArea(looks.column(self._list, expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=looks.bar(self._shell.say("mobile.models")),
        )

    async def shown(self) -> None:
        self._go.copies.watchers.add(self._copied)
        await self._draw()
        await self._ask_offers()

    def left(self) -> None:
        self._go.copies.watchers.discard(self._copied)

    def _copied(self) -> None:
        """A copy has come further, or ended."""
        if self._rows.keys() == self._go.copies.known.keys():
            for id, row in self._rows.items():
                row.show(self._go.copies.known[id])
        else:
            self._shell.start(self._draw())

    async def _ask_offers(self) -> None:
        """What the connected computers have; one that is away is passed over."""
        for server in list(self._go.links.servers.values()):
            if self._go.links.is_paired(server):
                self._away.pop(server.id, None)
                try:
                    self._offers[server.id] = await asyncio.to_thread(device.offers, server)
                except ImpChatError as error:
                    self._away[server.id] = error
        await self._draw()

    async def _draw(self) -> None:
        shell, say = self._shell, self._shell.say
        copies = self._go.copies
        self._rows = {id: CopyRow(shell, copy, self) for id, copy in copies.known.items()}
        found = await asyncio.to_thread(library.models, shell.app.data)
        memory = await asyncio.to_thread(library.memory)
        here = [self._model(model, memory) for model in found if model.bundle]
        ids = {model.id for model in found if model.bundle} | copies.known.keys()
        offered = [
            self._offer(server, offer, memory)
            for server in self._go.links.servers.values()
            for offer in self._offers.get(server.id, [])
            if offer.id not in ids
        ]
        there = [self._model(model, memory) for model in found if not model.bundle and model.id not in copies.known]
        away = [error.sentence(shell.language) for error in self._away.values()]
        why = away or [say("mobile.models_no_more" if self._offers else "mobile.models_says")]
        says = looks.faint(" ".join(why), size=13)
        self._list.controls = [
            looks.heading(say("mobile.models_here")),
            *here,
            *[row.control for row in self._rows.values()],
            looks.heading(say("mobile.models_offered")),
            *(offered or [ft.Container(says, padding=ft.Padding.symmetric(horizontal=20))]),
            ft.TextButton(say("mobile.from_address"), icon=ft.Icons.LINK_ROUNDED, on_click=shell.on(self._ask_address)),
            looks.heading(say("mobile.models_there")),
            *there,
        ]
        shell.page.update()

    def _model(self, model: Model, memory: Memory | None) -> ft.Control:
        shell, say = self._shell, self._shell.say
        bundle, entry = model.bundle, model.entry
        runs = bundle is not None and bundle.id == shell.app.model
        bytes_, tokens = (
            (bundle.size_bytes, bundle.context_tokens)
            if bundle
            else (entry.bundle_bytes, entry.context_tokens)
            if entry
            else (0, 0)
        )
        facts = [size(bytes_)] if bytes_ else []
        if image := bundle.image.size if bundle else entry.image_size if entry else 0:
            facts.append(say("mobile.model_eyes", side=image))
        if bytes_:
            facts.append(self._fits(entry, bytes_, tokens, memory))
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

    def _fits(self, entry: Entry | None, bundle_bytes: int, most_tokens: int, memory: Memory | None) -> str:
        """Whether it fits into memory, in words, with the context that was chosen; `most_tokens`: the model's own."""
        tokens = min(self._shell.preferences.context_tokens or most_tokens, most_tokens)
        needed = memory_bytes(self._shell.app.tuning, entry, bundle_bytes, tokens)
        fits = memory.fits(needed) if memory else "unknown"
        return self._shell.say(f"mobile.fits_{fits}", size=size(needed), tokens=tokens)

    def _buttons(self, model: Model, runs: bool) -> list[ft.Control]:
        shell, say = self._shell, self._shell.say
        buttons: list[ft.Control] = []
        if model.bundle and not runs:
            buttons.append(ft.FilledTonalButton(say("mobile.run"), on_click=shell.on(lambda: self._choose(model))))
        if model.disk_bytes and not (model.bundle and model.bundle.demo):
            remove = shell.on(lambda: self._ask_remove(model))
            buttons.append(ft.TextButton(say("chat.delete"), on_click=remove))
        return buttons

    # Copies

    def _offer(self, server: Server, offer: Offer, memory: Memory | None) -> ft.Control:
        shell, say = self._shell, self._shell.say
        entry = catalog.ENTRIES.get(offer.id)
        fits = self._fits(entry, offer.bytes, entry.context_tokens if entry else settings.CONTEXT_TOKENS, memory)
        facts = [size(offer.bytes), fits, say("mobile.on", name=server.name)]
        return looks.card(
            ft.Column(
                [
                    ft.Text(offer.name, size=16, weight=ft.FontWeight.W_600),
                    looks.faint(" · ".join(facts), size=13),
                    looks.faint(say("mobile.model_terms", terms=offer.licence)),
                    ft.Row([ft.FilledButton(say("mobile.download"), icon=ft.Icons.DOWNLOAD_ROUNDED,
                                            on_click=shell.on(lambda: self._ask_licence(server, offer)))]),
                ],
                spacing=6,
                tight=True,
            )
        )  # fmt: skip

    def _ask_licence(self, server: Server, offer: Offer) -> None:
        """Its terms come before its bytes."""
        shell = self._shell
        source = Source(_base(server, offer.id), offer.sha256, server.id)
        copy = Copy(offer.id, offer.name, source, total=offer.bytes)

        async def agreed() -> None:
            await asyncio.to_thread(library.accept, shell.app.data, offer.licence)
            self.go_on(copy)

        if library.is_accepted(shell.app.data, offer.licence):
            self.go_on(copy)
        else:
            words = ft.Text(shell.say("mobile.licence_says", terms=offer.licence))
            shell.ask(shell.say("mobile.licence_title"), words, shell.say("mobile.agree"), agreed)

    def go_on(self, copy: Copy) -> None:
        """Fetch it, or go on with it."""
        server = self._go.links.servers.get(copy.source.server)
        if copy.source.server and server is None:
            self._shell.tell(self._shell.say("mobile.copy_server_gone"), error=True)
            return
        if server:  # it may have another address than when the copy was begun
            copy.source = replace(copy.source, base=_base(server, copy.id))
        self._go.copies.begin(copy, (lambda: device.client(server)) if server else copying.connection)

    def pause(self, copy: Copy) -> None:
        self._go.copies.pause(copy)

    async def give_up(self, copy: Copy) -> None:
        await self._go.copies.forget(copy)

    def _ask_address(self) -> None:
        shell, say = self._shell, self._shell.say
        border = ft.OutlineInputBorder(border_radius=14)
        address = ft.TextField(label=say("mobile.copy_address"), hint_text="https://…/impchat.json", border=border)
        digest = ft.TextField(label="SHA-256", border=border)

        def begin() -> None:
            source = copying.source(address.value or "", digest.value or "")
            name = source.base.rpartition("/")[2]
            self.go_on(Copy(name, name, source))

        words = looks.faint(say("mobile.copy_says"), size=13)
        shell.ask(say("mobile.from_address"), ft.Column([address, digest, words], tight=True, spacing=12),
                  say("mobile.download"), begin)  # fmt: skip

    async def _choose(self, model: Model) -> None:
        """Let it answer from now on; the one before is put away."""
        shell = self._shell
        bundle = await asyncio.to_thread(library.choose, shell.app.data, model.id)
        await asyncio.to_thread(shell.app.run_with, bundle, tuned(shell.app.tuning, shell.preferences))
        shell.tell(shell.say("models.runs", name=bundle.name))
        await self._draw()

    def _ask_remove(self, model: Model) -> None:
        shell = self._shell

        async def remove() -> None:
            if model.bundle and model.bundle.id == shell.app.model:
                demo = await asyncio.to_thread(library.resolve, shell.app.data, settings.DEMO_MODEL)
                await asyncio.to_thread(shell.app.run_with, demo, tuned(shell.app.tuning, shell.preferences))
            freed = await asyncio.to_thread(lambda: library.remove(shell.app.data, model.id, chosen_too=True))
            shell.tell(shell.say("models.removed", name=model.name, size=size(freed)))
            await self._draw()

        words = ft.Text(shell.say("mobile.remove_says", size=size(model.disk_bytes)))
        shell.ask(
            shell.say("mobile.remove_title", name=model.name), words, shell.say("chat.delete"), remove, danger=True
        )


class CopyRow:
    """A model on its way."""

    def __init__(self, shell: Shell, copy: Copy, screen: ModelsScreen) -> None:
        self._shell = shell
        self._bar = ft.ProgressBar(value=0, border_radius=4, bar_height=8)
        self._says = looks.faint("", size=13)
        say = shell.say
        self._pause = ft.FilledTonalButton(say("mobile.pause"), on_click=shell.on(lambda: screen.pause(copy)))
        self._resume = ft.FilledButton(say("mobile.resume"), on_click=shell.on(lambda: screen.go_on(copy)))
        self._drop = ft.TextButton(say("chat.delete"), on_click=shell.on(lambda: screen.give_up(copy)))
        self.control = looks.card(
            ft.Column(
                [
                    ft.Text(copy.name, size=16, weight=ft.FontWeight.W_600),
                    self._bar,
                    self._says,
                    ft.Row([self._pause, self._resume, self._drop], spacing=8),
                ],
                spacing=8,
                tight=True,
            )
        )
        self._set(copy)

    def show(self, copy: Copy) -> None:
        self._set(copy)
        self._shell.draw(self.control)

    def _set(self, copy: Copy) -> None:
        say = self._shell.say
        self._bar.value = copy.share
        told = say(
            "mobile.copied_so_far", done=size(copy.done), total=size(copy.total), percent=round(100 * copy.share)
        )
        self._says.value = copy.error.sentence(self._shell.language) if copy.error else told
        self._says.color = ft.Colors.ERROR if copy.error else looks.FAINT
        self._pause.visible = copy.running
        self._resume.visible = self._drop.visible = not copy.running


def _base(server: Server, id: str) -> str:
    """Where a computer has the files of its model `id`."""
    return f"{device.place(server.urls[0])}/bundles/{id}"


def _badge(text: str) -> ft.Control:
    return ft.Container(
        ft.Text(text, size=12, color=ft.Colors.ON_PRIMARY_CONTAINER),
        bgcolor=ft.Colors.PRIMARY_CONTAINER,
        border_radius=10,
        padding=ft.Padding.symmetric(horizontal=10, vertical=3),
    )
