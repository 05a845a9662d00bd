"""The card to pair with a computer: nearby, at an address, by QR code or by link.

In: what the user scans, taps or types, or a link that opened the app. Out: a paired computer, confirmed by the user.
This file does not know what a paired computer is used for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import flet as ft

from impchat.peers import discovery, pairing
from impchat.peers.discovery import Found
from impchat.peers.pairing import Link
from impchat_mobile import qr, theme
from impchat_mobile.app_shell import Shell

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator

T = TypeVar("T")


class PairCard:
    """`paired` is called after pairing, and again if the user chooses the computer for new chats. The input is kept
    until the pairing succeeds."""

    def __init__(self, shell: Shell, navigator: Navigator, paired: Callable[[], None]) -> None:
        self._shell = shell
        self._navigator = navigator
        self._paired = paired
        self._found: list[Found] | None = None  # None: the search is running
        say, border = shell.say, ft.OutlineInputBorder(border_radius=14)
        plain: dict[str, Any] = {"border": border, "autocorrect": False, "enable_suggestions": False}
        self._address = ft.TextField(label=say("mobile.link_label"), hint_text="192.168.1.5:7861", **plain)
        self._code = ft.TextField(
            label=say("mobile.code"),
            hint_text="ABCD-1234",
            capitalization=ft.TextCapitalization.CHARACTERS,
            on_submit=shell.on(self._pair),
            **plain,
        )
        self._busy = ft.ProgressBar(visible=False, border_radius=4)
        self._pair_button = ft.FilledTonalButton(say("mobile.pair_do"), on_click=shell.on(self._pair))
        self._nearby = ft.Column(spacing=0, tight=True)
        self._tiles: dict[str, ft.ListTile] = {}
        self._search_again = theme.small_button(
            ft.Icons.REFRESH_ROUNDED, say("mobile.near_again"), shell.on(self.search)
        )
        self.control = theme.card(
            ft.Column(
                [
                    ft.Text(say("mobile.pair"), size=17, weight=ft.FontWeight.W_600),
                    theme.muted(say("mobile.pair_says"), size=13),
                    ft.FilledButton(
                        say("mobile.scan"), icon=ft.Icons.QR_CODE_SCANNER_ROUNDED, on_click=shell.on(self._scan)
                    ),
                    ft.Row([ft.Text(say("mobile.near"), weight=ft.FontWeight.W_600, expand=True), self._search_again]),
                    self._nearby,
                    self._address,
                    self._code,
                    self._pair_button,
                    self._busy,
                ],
                spacing=12,
                tight=True,
                horizontal_alignment=ft.CrossAxisAlignment.STRETCH,
            )
        )

    # Nearby

    async def search(self) -> None:
        """Search for computers on this network."""
        self._found = None
        self.draw()
        self._found = await asyncio.to_thread(discovery.discover)
        self.draw()

    def draw(self) -> None:
        """Show the computers that were found."""
        say = self._shell.say
        self._search_again.disabled = self._found is None
        if self._found:
            self._tiles = {found.id: self._tiles.get(found.id) or self._tile(found) for found in self._found}
            for id, tile in self._tiles.items():
                is_known = id in self._navigator.links.servers
                tile.trailing = theme.muted(say("mobile.near_known")) if is_known else None
            self._nearby.controls = list(self._tiles.values())
        else:
            message = say("mobile.near_searching" if self._found is None else "mobile.near_none")
            self._nearby.controls = [theme.muted(message, size=13)]
        self._shell.draw(self._nearby, self._search_again)

    def _tile(self, found: Found) -> ft.ListTile:
        return ft.ListTile(
            leading=ft.Icon(ft.Icons.LAPTOP_ROUNDED, color=theme.MUTED),
            title=ft.Text(found.name or found.places[0], max_lines=1, overflow=ft.TextOverflow.ELLIPSIS),
            subtitle=theme.muted(found.places[0]),
            content_padding=0,
            on_click=self._shell.on(lambda: self._choose(found)),
        )

    async def _choose(self, found: Found) -> None:
        self._address.value = found.places[0]
        self._shell.draw(self._address)
        await self._code.focus()

    # From the input to a pairing link

    async def _scan(self) -> None:
        async def take(data: bytes) -> None:
            text = await asyncio.to_thread(qr.read, data)
            if not text:
                self._shell.notify(self._shell.say("mobile.no_code"), error=True)
                return
            self._address.value = text
            await self._pair()

        await self._navigator.camera(take)

    async def _pair(self) -> None:
        if self._pair_button.disabled:  # already pairing
            return
        typed = (self._address.value or "").strip()
        if pairing.is_link(typed):
            link = Link.read(typed)
            if link.is_plain:
                self._ask(link, "mobile.plain", "mobile.plain_says")
            else:
                await self._take(link)
            return
        place = pairing.place_of(typed)
        places = next((found.places for found in self._found or () if found.places[0] == place), (place,))
        code = self._code.value or ""
        link = await self._while_busy(asyncio.to_thread(pairing.meet, places, code))
        if link.is_plain:
            self._ask(link, "mobile.plain", "mobile.plain_met")
        else:
            self._ask(link, "mobile.check", "mobile.check_says", "mobile.check_same")

    def ask_about(self, link: Link) -> None:
        """Ask about the link that opened the app. Anyone may have made it: nothing is sent before the user agrees."""
        self._address.value = str(link)
        self._shell.draw(self._address)
        self._ask(link, "mobile.pair_with", "mobile.plain_says" if link.is_plain else "mobile.pair_with_says")

    def _ask(self, link: Link, title: str, says: str, do: str = "mobile.pair_do") -> None:
        say, place = self._shell.say, link.places[0]
        lines: list[ft.Control] = [ft.Text(say(says, place=place))]
        if do == "mobile.check_same":
            lines.insert(0, ft.Text(link.check, size=22, weight=ft.FontWeight.W_600, font_family="monospace"))
        content = ft.Column(lines, tight=True, spacing=12)
        self._shell.confirm(say(title, place=place), content, say(do), lambda: self._take(link))

    async def _take(self, link: Link) -> None:
        server = await self._while_busy(self._navigator.links.pair(link))
        self._address.value = self._code.value = ""
        self._shell.draw(self._address, self._code)
        self._paired()
        self.draw()

        async def answer_new() -> None:
            await self._navigator.set_default_server(server)
            self._paired()

        offer = self._shell.say("mobile.new_chats_offer"), answer_new
        self._shell.notify(self._shell.say("mobile.paired", name=server.name), offer=offer)

    async def _while_busy(self, work: Awaitable[T]) -> T:
        self._busy.visible = self._pair_button.disabled = True
        self._shell.draw(self._busy, self._pair_button)
        try:
            return await work
        finally:
            self._busy.visible = self._pair_button.disabled = False
            self._shell.draw(self._busy, self._pair_button)
