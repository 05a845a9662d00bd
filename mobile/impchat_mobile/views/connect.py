"""The My computer screen: pair with a computer, or connect to any server with OpenAI's API.

In: what the user scans or types. Out: a list of servers to save, test and remove.
This file does not know how requests reach them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import flet as ft

from impchat import settings
from impchat.errors import ImpChatError
from impchat.peers import servers, sync
from impchat.peers.pairing import Link
from impchat.peers.servers import Server
from impchat.peers.sync import RemoteConversation
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell
from impchat_mobile.views.pair import PairCard

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator


class ConnectScreen(Screen):
    def __init__(self, shell: Shell, navigator: Navigator) -> None:
        self._shell = shell
        self._navigator = navigator

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._cards: dict[str, ServerCard] = {}
        self._known = ft.Column(spacing=12, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
        self._places = ft.Column(spacing=0, tight=True)
        self._new = ft.RadioGroup(self._places, on_change=shell.on(self._choose_new))
        self._new_chats = theme.card(
            ft.Column(
                [
                    ft.Text(say("mobile.new_chats"), size=17, weight=ft.FontWeight.W_600),
                    theme.muted(say("mobile.new_chats_says"), size=13),
                    self._new,
                ],
                spacing=6,
                tight=True,
            ),
            visible=False,
        )
        self._pair, self._has_searched = PairCard(shell, self._navigator, self.draw), False
        other = ft.TextButton(
            say("mobile.other_server"), icon=ft.Icons.ADD_ROUNDED, on_click=shell.on(self._add_server)
        )
        page = ft.ListView(
            [self._known, self._new_chats, self._pair.control, other],
            spacing=12,
            padding=ft.Padding.only(left=16, right=16, top=8, bottom=32),
            expand=True,
        )
        return ft.View(
            [ft.SafeArea(theme.column(page, expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=theme.app_bar(say("mobile.connect")),
        )

    async def shown(self) -> None:
        await self._navigator.links.load()
        self.draw()
        if not self._has_searched:
            self._has_searched = True
            self._shell.start(self._pair.search())

    def ask_about(self, link: Link) -> None:
        """Ask about the link that opened the app."""
        self._pair.ask_about(link)

    def draw(self) -> None:
        """Update the cards of the connected computers. Existing cards are kept, so a press on one is not lost."""
        known = self._navigator.links.servers
        self._cards = {id: self._cards.get(id) or ServerCard(self._shell, self._navigator, self) for id in known}
        self._known.controls = [self._cards[id].show(server) for id, server in known.items()]
        chosen = self._navigator.server_of(None)
        self._places.controls = [ft.Radio(value="", label=self._navigator.answered_by_default())]
        self._places.controls += [
            ft.Radio(value=id, label=self._shell.say("mobile.there", name=server.name, model=server.model))
            for id, server in known.items()
        ]
        self._new.value = chosen.id if chosen else ""
        self._new_chats.visible = bool(known)
        self._shell.page.update()

    async def _choose_new(self) -> None:
        await self._navigator.set_default_server(self._navigator.links.servers.get(self._new.value or ""))

    # Any other server

    def _add_server(self) -> None:
        shell, say = self._shell, self._shell.say
        border = ft.OutlineInputBorder(border_radius=14)
        address = ft.TextField(
            label=say("mobile.address"), hint_text="http://192.168.1.2:8080", border=border, autofocus=True
        )
        key = ft.TextField(label=say("mobile.key"), password=True, can_reveal_password=True, border=border)
        model = ft.TextField(label=say("mobile.server_model"), border=border)
        models = ft.RadioGroup(ft.Column(spacing=0, tight=True, scroll=ft.ScrollMode.AUTO))
        several = ft.Column([theme.muted(say("mobile.server_several"), size=13), models], tight=True, visible=False)

        def changed() -> None:
            """Hide the list of models: another address has other models."""
            several.visible, model.visible, models.value = False, True, None
            shell.draw(several, model)

        address.on_change = key.on_change = shell.on(changed)

        async def add() -> bool:
            chosen_model = models.value if several.visible else model.value
            added = await self._navigator.links.add(address.value or "", key.value or "", chosen_model or "")
            if isinstance(added, tuple):
                models.content = ft.Column(
                    [ft.Radio(value=name, label=name) for name in added],
                    spacing=0,
                    scroll=ft.ScrollMode.AUTO,
                    height=min(48 * len(added), 240),
                )
                several.visible, model.visible = True, False
                shell.draw(several, model)
                return False
            self.draw()
            shell.notify(say("mobile.connected", name=added.name))
            return True

        says = theme.muted(say("mobile.other_says"), size=13)
        shell.form(say("mobile.other_server"), [address, key, model, several, says], say("mobile.save"), add)


class ServerCard:
    """The card of a connected computer: its properties and actions."""

    def __init__(self, shell: Shell, navigator: Navigator, screen: ConnectScreen) -> None:
        self._shell = shell
        self._navigator = navigator
        self._screen = screen
        self._server: Server | None = None
        say = shell.say
        self._name = ft.Text("", size=16, weight=ft.FontWeight.W_600, expand=True)
        self._properties = theme.muted("", size=13)
        test = ft.FilledTonalButton(say("mobile.test"), on_click=shell.on(self._test))
        self._bring = ft.TextButton(say("mobile.bring"), on_click=shell.on(self._choose_remote))
        self._forget = ft.TextButton(say("mobile.forget"), on_click=shell.on(self._ask_forget))
        self._card = theme.card(
            ft.Column(
                [
                    ft.Row([ft.Icon(ft.Icons.LAPTOP_ROUNDED, color=ft.Colors.PRIMARY), self._name]),
                    self._properties,
                    ft.Row([test, self._bring, self._forget], wrap=True, spacing=8),
                ],
                spacing=6,
                tight=True,
            )
        )

    def show(self, server: Server) -> ft.Control:
        """Update the card. If `server` is unchanged, the result of its last test stays."""
        if server != self._server:
            safe = "mobile.server_open" if servers.is_readable(server.urls[0]) else "mobile.server_safe"
            self._properties.value = " · ".join(part for part in (server.model, self._shell.say(safe)) if part)
            self._name.value, self._server = server.name, server
        self._bring.visible = self._navigator.links.is_paired(server)
        self._forget.visible = server != self._navigator.links.given
        return self._card

    async def _test(self) -> None:
        shell, say, server, facts = self._shell, self._shell.say, self._server, self._properties
        assert server
        facts.value = say("mobile.testing")
        shell.draw(facts)
        try:
            found = await self._navigator.links.facts(server)
        except ImpChatError as error:
            facts.value = shell.sentence(error)
        else:
            parts = [server.model or ", ".join(found.models[:3])]
            parts.append(say("mobile.sees" if found.vision else "mobile.sees_not"))
            if found.context_tokens:
                parts.append(say("mobile.reads", tokens=found.context_tokens))
            if found.unverified:
                parts.append(say("chat.unverified"))
            facts.value = say("mobile.works", facts=" · ".join(part for part in parts if part))
        shell.draw(facts)

    async def _choose_remote(self) -> None:
        shell, server = self._shell, self._server
        assert server
        found = await asyncio.to_thread(sync.conversations, server)
        rows: list[ft.Control] = [
            shell.action(
                ft.Icons.CHAT_BUBBLE_OUTLINE_ROUNDED,
                remote.title or shell.say("chat.untitled"),
                lambda remote=remote: self._bring_conversation(server, remote),
            )
            for remote in found[:40]
        ]
        nothing = ft.Container(theme.muted(shell.say("mobile.nothing_there"), size=14), padding=20)
        shell.sheet(theme.heading(shell.say("mobile.bring")), *(rows or [nothing]))

    async def _bring_conversation(self, server: Server, remote: RemoteConversation) -> None:
        shell = self._shell
        row = await asyncio.to_thread(sync.bring, server, shell.app.history, remote.uuid, settings.OWNER)
        await self._navigator.show_conversation(row.uuid)

    def _ask_forget(self) -> None:
        shell, server = self._shell, self._server
        assert server

        async def forget() -> None:
            await self._navigator.links.remove(server)
            self._screen.draw()

        message = ft.Text(shell.say("mobile.forget_says"))
        shell.confirm(
            shell.say("mobile.forget_title", name=server.name), message, shell.say("mobile.forget"), forget, danger=True
        )
