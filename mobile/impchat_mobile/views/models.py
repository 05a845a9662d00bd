"""The models: installed and available ones, whether they fit into memory, and which one answers.

In: the library of models. Out: a list with actions; a choice takes effect at once.
This file does not know how a model is run or copied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import flet as ft

from impchat import machine, settings
from impchat.errors import ImpChatError
from impchat.machine import Memory
from impchat.models import catalog, copying, library
from impchat.models.catalog import Entry
from impchat.models.copying import Source
from impchat.models.library import Model
from impchat.peers import sync
from impchat.peers.servers import Server
from impchat.peers.sync import Offer
from impchat.texts import size
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell
from impchat_mobile.copies import Copy
from impchat_mobile.guard import Handler
from impchat_mobile.tuning import memory_bytes, run

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator


class ModelsScreen(Screen):
    def __init__(self, shell: Shell, navigator: Navigator) -> None:
        self._shell = shell
        self._navigator = navigator
        self._offers: dict[str, list[Offer]] = {}  # id of a server -> the models that it offers
        self._errors: dict[str, ImpChatError] = {}
        self._loading = True
        self._drawing = asyncio.Lock()

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._rows: dict[str, ModelRow] = {}
        self._installed, self._offered, self._others = (
            ft.Column(spacing=12, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH) for _ in range(3)
        )
        self._hint = theme.muted("", size=13)
        page = ft.ListView(
            [
                theme.heading(say("mobile.models_here")),
                self._installed,
                theme.heading(say("mobile.models_offered")),
                self._offered,
                ft.Container(self._hint, padding=ft.Padding.symmetric(horizontal=20)),
                ft.TextButton(
                    say("mobile.from_address"), icon=ft.Icons.LINK_ROUNDED, on_click=shell.on(self._ask_address)
                ),
                theme.heading(say("mobile.models_there")),
                self._others,
            ],
            spacing=12,
            padding=ft.Padding.only(left=16, right=16, top=8, bottom=32),
            expand=True,
        )
        return ft.View(
            [ft.SafeArea(theme.column(page, expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=theme.app_bar(say("mobile.models")),
        )

    async def shown(self) -> None:
        self._navigator.copies.watchers.add(self._copies_changed)
        await self._draw()
        await self._load_offers()

    def left(self) -> None:
        self._navigator.copies.watchers.discard(self._copies_changed)

    def _copies_changed(self) -> None:
        """A copy has made progress or ended."""
        self._shell.start(self._draw())

    async def _load_offers(self) -> None:
        """Load the offers of the paired computers. The error of an unreachable one is shown instead."""
        for server in list(self._navigator.links.servers.values()):
            if self._navigator.links.is_paired(server):
                self._errors.pop(server.id, None)
                try:
                    self._offers[server.id] = await asyncio.to_thread(sync.offers, server)
                except ImpChatError as error:
                    self._errors[server.id] = error
        self._loading = False
        await self._draw()

    async def _draw(self) -> None:
        """Update the rows. Each keeps its control as long as it is shown, even if it moves: Flet loses the press on a
        button that is replaced meanwhile."""
        async with self._drawing:
            shell, copies, links = self._shell, self._navigator.copies, self._navigator.links
            found = await asyncio.to_thread(library.models, shell.app.data)
            memory = await asyncio.to_thread(machine.memory)
            before, self._rows = self._rows, {}

            def row(key: str) -> ModelRow:
                self._rows[key] = before.get(key) or ModelRow(shell)
                return self._rows[key]

            ids = {model.id for model in found if model.bundle} | copies.known.keys()
            self._installed.controls = [self._model(row(m.id), m, memory) for m in found if m.bundle]
            self._installed.controls += [self._copy(row(copy.id), copy) for copy in copies.known.values()]
            self._offered.controls = [
                self._offer(row(f"{server.id}/{offer.id}"), server, offer, memory)
                for server in links.servers.values()
                for offer in self._offers.get(server.id, [])
                if offer.id not in ids
            ]
            self._others.controls = [self._model(row(m.id), m, memory) for m in found if m.id not in ids]
            why = [error.sentence(shell.language) for error in self._errors.values()]
            paired = any(links.is_paired(server) for server in links.servers.values())
            none = "mobile.testing" if self._loading else "mobile.models_no_more"
            self._hint.value = " ".join(why or [shell.say(none if paired else "mobile.models_says")])
            self._hint.visible = not self._offered.controls
            shell.draw(self._installed, self._offered, self._hint, self._others)

    def _model(self, row: ModelRow, model: Model, memory: Memory | None) -> ft.Control:
        shell, say = self._shell, self._shell.say
        bundle, entry = model.bundle, model.entry
        is_running = bundle is not None and bundle.id == shell.app.model
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
        if bundle and bundle.unverified:
            facts.append(f"{say('chat.unverified')} ({bundle.unverified})")
        do: dict[str, Handler] = {}
        if bundle and not is_running and shell.app.bundle:
            do["chat.use_unverified" if bundle.unverified else "mobile.run"] = lambda: self._choose(model)
        if model.disk_bytes and not (bundle and bundle.demo):
            do["chat.delete"] = lambda: self._ask_remove(model)
        return row.show(
            model.name,
            facts,
            bundle.licence if bundle else entry.licence if entry else "",
            do,
            is_running=is_running,
            problem=model.problem,
        )

    def _fits(self, entry: Entry | None, bundle_bytes: int, most_tokens: int, memory: Memory | None) -> str:
        """Whether a model fits into memory with the chosen context, as text. `most_tokens`: its context length."""
        shell = self._shell
        chosen = shell.app.tuning.context_tokens if shell.shares else shell.preferences.context_tokens
        tokens = min(chosen or most_tokens, most_tokens)
        needed = memory_bytes(shell.app.tuning, entry, bundle_bytes, tokens)
        fits = memory.fits(needed) if memory else "unknown"
        return shell.say(f"mobile.fits_{fits}", size=size(needed), tokens=tokens)

    # Copies

    def _offer(self, row: ModelRow, server: Server, offer: Offer, memory: Memory | None) -> ft.Control:
        entry = catalog.ENTRIES.get(offer.id)
        fits = self._fits(entry, offer.bytes, entry.context_tokens if entry else settings.CONTEXT_TOKENS, memory)
        facts = [size(offer.bytes), fits, self._shell.say("mobile.on", name=server.name)]
        return row.show(offer.name, facts, offer.licence, {"mobile.download": lambda: self._ask_licence(server, offer)})

    def _copy(self, row: ModelRow, copy: Copy) -> ft.Control:
        progress = self._shell.say(
            "mobile.copied_so_far", done=size(copy.done), total=size(copy.total), percent=round(100 * copy.fraction)
        )
        do: dict[str, Handler] = {"mobile.pause": lambda: self._navigator.copies.pause(copy)}
        if not copy.running:
            do = {
                "mobile.resume": lambda: self.resume(copy),
                "chat.delete": lambda: self._navigator.copies.discard(copy),
            }
        return row.show(copy.name, [progress], "", do, fraction=copy.fraction, problem=copy.error)

    def _ask_licence(self, server: Server, offer: Offer) -> None:
        """Start a copy, after the user has accepted the licence."""
        shell = self._shell
        source = Source(_base_url(server, offer.id), offer.sha256, server.id)
        copy = Copy(offer.id, offer.name, source, total=offer.bytes)

        async def agreed() -> None:
            await asyncio.to_thread(library.accept, shell.app.data, offer.licence)
            self.resume(copy)

        if library.is_accepted(shell.app.data, offer.licence):
            self.resume(copy)
        else:
            message = ft.Text(shell.say("mobile.licence_says", terms=offer.licence))
            shell.confirm(shell.say("mobile.licence_title"), message, shell.say("mobile.agree"), agreed)

    def resume(self, copy: Copy) -> None:
        """Start or resume a copy."""
        server = self._navigator.links.servers.get(copy.source.server)
        if copy.source.server and server is None:
            self._shell.notify(self._shell.say("mobile.copy_server_gone"), error=True)
            return
        if server:  # its address may have changed since the copy was started
            copy.source = replace(copy.source, base=_base_url(server, copy.id))
        self._navigator.copies.start(copy, (lambda: sync.client(server)) if server else copying.connection)

    def _ask_address(self) -> None:
        shell, say = self._shell, self._shell.say
        border = ft.OutlineInputBorder(border_radius=14)
        address = ft.TextField(label=say("mobile.copy_address"), hint_text="https://…/impchat.json", border=border)
        digest = ft.TextField(label="SHA-256", border=border)

        def begin() -> None:
            source = copying.source(address.value or "", digest.value or "")
            name = source.base.rpartition("/")[2]
            self.resume(Copy(name, name, source))

        message = theme.muted(say("mobile.copy_says"), size=13)
        shell.form(say("mobile.from_address"), [address, digest, message], say("mobile.download"), begin)

    async def _choose(self, model: Model) -> None:
        """Use this model for all answers from now on. The previous one is unloaded."""
        shell = self._shell
        assert model.bundle
        await asyncio.to_thread(library.permit, shell.app.data, model.bundle)  # its button says "unverified"
        bundle = await asyncio.to_thread(library.resolve, shell.app.data, model.id)
        await asyncio.to_thread(run, shell.app, bundle, shell.model_preferences)
        await asyncio.to_thread(library.choose, shell.app.data, model.id)
        shell.notify(shell.say("models.runs", name=bundle.name))
        await self._draw()

    def _ask_remove(self, model: Model) -> None:
        shell = self._shell

        async def remove() -> None:
            if model.bundle and model.bundle.id == shell.app.model:
                demo = await asyncio.to_thread(library.resolve, shell.app.data, settings.DEMO_MODEL)
                await asyncio.to_thread(run, shell.app, demo, shell.model_preferences)
            freed = await asyncio.to_thread(lambda: library.remove(shell.app.data, model.id, chosen_too=True))
            shell.notify(shell.say("models.removed", name=model.name, size=size(freed)))
            await self._draw()

        message = ft.Text(shell.say("mobile.remove_says", size=size(model.disk_bytes)))
        shell.confirm(
            shell.say("mobile.remove_title", name=model.name), message, shell.say("chat.delete"), remove, danger=True
        )


# text key of the label -> type and icon
_BUTTONS: dict[str, tuple[type[ft.Button | ft.TextButton], ft.IconData | None]] = {
    "mobile.download": (ft.FilledButton, ft.Icons.DOWNLOAD_ROUNDED),
    "mobile.resume": (ft.FilledButton, None),
    "mobile.pause": (ft.FilledTonalButton, None),
    "mobile.run": (ft.FilledTonalButton, None),
    "chat.use_unverified": (ft.FilledTonalButton, None),
    "chat.delete": (ft.TextButton, None),
}


class ModelRow:
    """The card of a model that is offered, being copied or installed. Its controls are kept in all these states."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._do: dict[str, Handler] = {}
        self._name = ft.Text("", size=16, weight=ft.FontWeight.W_600, expand=True)
        self._running = _badge(shell.say("models.state_running"))
        self._bar = ft.ProgressBar(value=0, border_radius=4, bar_height=8)
        self._facts, self._terms = theme.muted("", size=13), theme.muted("")
        self._problem = ft.Text("", size=13, color=ft.Colors.ERROR)
        self._buttons = {
            key: look(shell.say(key), icon=icon, on_click=shell.on(lambda key=key: self._do[key]()))
            for key, (look, icon) in _BUTTONS.items()
        }
        self._line = ft.Row(list(self._buttons.values()), spacing=8, wrap=True)
        parts: list[ft.Control] = [ft.Row([self._name, self._running]), self._bar, self._facts, self._problem]
        self._card = theme.card(ft.Column([*parts, self._terms, self._line], spacing=6, tight=True))

    def show(
        self,
        name: str,
        facts: Sequence[str],
        terms: str,
        do: dict[str, Handler],
        is_running: bool = False,
        fraction: float | None = None,
        problem: ImpChatError | None = None,
    ) -> ft.Control:
        """Update the card. `fraction`: share copied, 0 to 1; None: no copy. `do`: text key of a button -> action."""
        shell, self._do = self._shell, do
        self._name.value, self._running.visible = name, is_running
        self._bar.value, self._bar.visible = fraction, fraction is not None
        self._facts.value = " · ".join(facts)
        self._problem.value = problem.sentence(shell.language) if problem else ""
        self._problem.visible = problem is not None
        self._terms.value, self._terms.visible = shell.say("mobile.model_terms", terms=terms), bool(terms)
        for key, button in self._buttons.items():
            button.visible = key in do
        self._line.visible = bool(do)
        return self._card


def _base_url(server: Server, id: str) -> str:
    """The URL of the files of a computer's model `id`."""
    return f"{sync.place(server.urls[0])}/bundles/{id}"


def _badge(text: str) -> ft.Control:
    return ft.Container(
        ft.Text(text, size=12, color=ft.Colors.ON_PRIMARY_CONTAINER),
        bgcolor=ft.Colors.PRIMARY_CONTAINER,
        border_radius=10,
        padding=ft.Padding.symmetric(horizontal=10, vertical=3),
    )
