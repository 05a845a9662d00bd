"""My computer: pair with it, or connect any server that speaks OpenAI's API.

In: what a person scans or types. Out: servers that are kept, tried, described and forgotten.
This file does not know how they are spoken to.
"""

from __future__ import annotations

import asyncio
from typing import Any

import flet as ft

from impchat import device, servers, settings
from impchat.device import There
from impchat.errors import ImpChatError
from impchat.pairing import Link
from impchat.servers import Server
from impchat_mobile import looks
from impchat_mobile.shell import Screen, Shell
from impchat_mobile.views.pair import PairCard


class ConnectScreen(Screen):
    def __init__(self, shell: Shell, go: Any) -> None:
        self._shell = shell
        self._go = go

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._known = ft.Column(spacing=12, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
        self._pair, self._looked = PairCard(shell, self._go, self._draw), False
        other = ft.TextButton(say("mobile.other_server"), icon=ft.Icons.ADD_ROUNDED, on_click=shell.on(self._other))
        page = ft.ListView(
            [self._known, self._pair.control, other],
            spacing=12,
            padding=ft.Padding.only(left=16, right=16, top=8, bottom=32),
            expand=True,
        )
        return ft.View(
            [ft.SafeArea(looks.column(page, expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=looks.bar(say("mobile.connect")),
        )

    async def shown(self) -> None:
        await self._go.links.load()
        self._draw()
        if not self._looked:
            self._looked = True
            self._shell.start(self._pair.search())

    def offered(self, link: Link) -> None:
        """A link opened the app."""
        self._pair.offered(link)

    def _draw(self) -> None:
        self._known.controls = [self._server(server) for server in self._go.links.servers.values()]
        self._shell.page.update()

    def _server(self, server: Server) -> ft.Control:
        shell, say = self._shell, self._shell.say
        safe = say("mobile.server_safe") if not servers.is_readable(server.urls[0]) else say("mobile.server_open")
        facts = looks.faint(" · ".join(part for part in (server.model, safe) if part), size=13)
        buttons: list[ft.Control] = [
            ft.FilledTonalButton(say("mobile.test"), on_click=shell.on(lambda: self._test(server, facts)))
        ]
        if self._go.links.is_paired(server):
            buttons.append(ft.TextButton(say("mobile.bring"), on_click=shell.on(lambda: self._choose_there(server))))
        if server != self._go.links.given:
            buttons.append(ft.TextButton(say("mobile.forget"), on_click=shell.on(lambda: self._forget(server))))
        return looks.card(
            ft.Column(
                [
                    ft.Row(
                        [
                            ft.Icon(ft.Icons.LAPTOP_ROUNDED, color=ft.Colors.PRIMARY),
                            ft.Text(server.name, size=16, weight=ft.FontWeight.W_600, expand=True),
                        ]
                    ),
                    facts,
                    ft.Row(buttons, wrap=True, spacing=8),
                ],
                spacing=6,
                tight=True,
            )
        )

    # Any other server

    def _other(self) -> None:
        shell, say = self._shell, self._shell.say
        border = ft.OutlineInputBorder(border_radius=14)
        address = ft.TextField(
            label=say("mobile.address"), hint_text="http://192.168.1.2:8080", border=border, autofocus=True
        )
        key = ft.TextField(label=say("mobile.key"), password=True, can_reveal_password=True, border=border)
        model = ft.TextField(label=say("mobile.server_model"), border=border)

        async def add() -> None:
            server = await self._go.links.add(address.value or "", key.value or "", model.value or "")
            self._draw()
            shell.tell(shell.say("mobile.connected", name=server.name))

        shell.ask(
            say("mobile.other_server"),
            ft.Column([address, key, model, looks.faint(say("mobile.other_says"), size=13)], tight=True, spacing=12),
            say("mobile.test"),
            add,
        )

    # A kept server

    async def _test(self, server: Server, facts: ft.Text) -> None:
        shell, say = self._shell, self._shell.say
        facts.value = say("mobile.testing")
        shell.draw(facts)
        try:
            found = await self._go.links.facts(server)
        except ImpChatError as error:
            facts.value = shell.sentence(error)
        else:
            words = [server.model or ", ".join(found.models[:3])]
            words.append(say("mobile.sees" if found.vision else "mobile.sees_not"))
            if found.context_tokens:
                words.append(say("mobile.reads", tokens=found.context_tokens))
            facts.value = say("mobile.works", facts=" · ".join(word for word in words if word))
        shell.draw(facts)

    def _forget(self, server: Server) -> None:
        shell = self._shell

        async def forget() -> None:
            await self._go.links.remove(server)
            self._draw()

        words = ft.Text(shell.say("mobile.forget_says"))
        shell.ask(
            shell.say("mobile.forget_title", name=server.name), words, shell.say("mobile.forget"), forget, danger=True
        )

    async def _choose_there(self, server: Server) -> None:
        shell = self._shell
        found = await asyncio.to_thread(device.conversations, server)
        rows = [
            shell.action(
                ft.Icons.CHAT_BUBBLE_OUTLINE_ROUNDED,
                there.title or shell.say("chat.untitled"),
                lambda there=there: self._bring(server, there),
            )
            for there in found[:40]
        ]
        nothing = ft.Container(looks.faint(shell.say("mobile.nothing_there"), size=14), padding=20)
        shell.sheet(looks.heading(shell.say("mobile.bring")), *(rows or [nothing]))

    async def _bring(self, server: Server, there: There) -> None:
        shell = self._shell
        row = await asyncio.to_thread(device.bring, server, shell.app.history, there.uuid, settings.OWNER)
        await self._go.home(row.uuid)
