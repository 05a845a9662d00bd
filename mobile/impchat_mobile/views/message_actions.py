"""The actions on a message: enlarge a picture, share, read aloud, open a link, edit, regenerate.

In: a message of the open conversation. Out: calls to the conversation, the system or another screen.
This file does not know how a message is drawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import flet as ft

from impchat import presentation
from impchat.messages import Message
from impchat_mobile.app_shell import Shell
from impchat_mobile.conversation import OpenConversation

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator


class MessageActions:
    """`navigator`: opens other screens. `edit` and `regenerate` change the chat screen. `ask_part`: takes a picture, to
    ask about a part of it."""

    def __init__(
        self,
        shell: Shell,
        current: OpenConversation,
        navigator: Navigator,
        edit: Callable[[Message], Awaitable[None]],
        regenerate: Callable[[Message], Awaitable[None]],
        ask_part: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._shell = shell
        self._current = current
        self._navigator = navigator
        self.edit = edit
        self.regenerate = regenerate
        self._ask_part = ask_part

    async def choose(self, message: Message, step: int) -> None:
        await self._current.choose(message.uuid, step)

    async def share(self, message: Message) -> None:
        try:
            await self._shell.share.share_text(message.text)
        except Exception:  # noqa: BLE001 - this platform cannot share: copy instead
            await self._shell.copy(message.text)

    async def read_aloud(self, message: Message) -> None:
        await self._shell.read_aloud(message.text)

    async def open_picture(self, message: Message, name: str) -> None:
        """Open the pictures of a message in the viewer, at the picture `name`."""
        data = [await asyncio.to_thread(self._shell.app.history.image_bytes, sha) for sha in message.images]
        await self._navigator.viewer(data, message.images.index(name), self._ask_part)

    async def open_boxes(self, message: Message) -> None:
        """Open the picture with the answer's boxes in the viewer."""
        data = await asyncio.to_thread(self._current.boxed, message)
        if data:
            await self._navigator.viewer([data], 0, None)

    def open_link(self, address: str) -> None:
        shell = self._shell

        async def follow() -> None:
            await shell.launcher.launch_url(address)

        if address.lower().startswith(("http://", "https://", "mailto:")):
            shell.confirm(shell.say("mobile.link"), ft.Text(address, selectable=True), shell.say("mobile.open"), follow)

    def show_receipt(self, message: Message) -> None:
        """Open a sheet with the receipt of an answer."""
        shell, stats = self._shell, message.stats
        if stats:
            lines = [ft.Text(line) for line in presentation.receipt_details(stats, shell.language)]
            heading = ft.Text(shell.say("mobile.receipt"), size=18, weight=ft.FontWeight.W_600)
            body = ft.Column([heading, *lines], spacing=8, tight=True)
            shell.sheet(ft.Container(body, padding=ft.Padding.only(left=20, right=20, bottom=8)))
