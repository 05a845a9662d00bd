"""Navigation: opens the screens, and owns the objects that outlive a screen.

In: the shell and the open conversation. Out: methods that open a screen, for the other screens. Only this file imports
all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import flet as ft

from impchat import settings
from impchat.errors import ImpChatError
from impchat.peers import sync
from impchat.peers.pairing import Link
from impchat.peers.servers import Server
from impchat_mobile import theme
from impchat_mobile.app_shell import Shell
from impchat_mobile.conversation import OpenConversation
from impchat_mobile.copies import Copies
from impchat_mobile.keys import Keys
from impchat_mobile.links import Links


class Navigator:
    def __init__(self, shell: Shell, current: OpenConversation, server: Server | None = None) -> None:
        """`server`: answers unless the user has chosen otherwise; None: the local model."""
        from impchat_mobile.views.drawer import HistoryDrawer

        self._shell = shell
        self._current = current
        self.links = Links(shell.app, Keys(), server)
        self.copies = Copies(shell.app)
        self.history = HistoryDrawer(shell, current, self)

    async def load(self) -> None:
        """Load the connected computers and the unfinished copies of models. An error is shown to the user."""
        try:
            await self.links.load()
            await self.copies.load()
        except ImpChatError as error:
            self._shell.fail(error)

    # What answers

    def server_name(self) -> str:
        """The name of the server that answers in the open conversation; "": the local model answers."""
        return self._current.server.name if self._current.server else self._shell.app.server

    def answered_by(self) -> str:
        """Which computer and model answer in the open conversation, as text."""
        return self._remote(self._current.server) if self._current.server else self.answered_by_default()

    def _remote(self, server: Server) -> str:
        """A computer and its model, as text. Whether the model is unverified is known once the computer was used."""
        unverified = self._shell.app.remote(server).info.unverified
        return self._shell.say("mobile.there", name=server.name, model=self._model(server.model, unverified))

    def answered_by_default(self) -> str:
        """The same for a conversation for which no computer was chosen."""
        app = self._shell.app
        model = self._model(app.bundle.name if app.bundle else app.model, app.unverified)
        if app.server:  # the app below the page of `impchat web --server`
            return self._shell.say("mobile.there", name=app.server, model=model)
        return self._shell.say("mobile.here", model=model)

    def _model(self, name: str, unverified: bool) -> str:
        return f"{name} · {self._shell.say('chat.unverified')}" if unverified else name

    def server_of(self, conversation: str | None) -> Server | None:
        """The server chosen for `conversation`; for new ones if that is None. Returns None for the local model. If
        nothing was chosen, or the server is no longer connected, the one given at the start, if any."""
        chosen = self._shell.preferences.servers.get(conversation or "")
        return None if chosen == "" else self.links.servers.get(chosen or "", self.links.given)

    async def set_default_server(self, server: Server | None) -> None:
        """Choose what answers new conversations, including the open one if it is new. None: the local model."""
        shell = self._shell
        await shell.prefer(servers={**shell.preferences.servers, "": server.id if server else ""})
        if self._current.conversation is None:
            await self.history.screen.set_server(server)

    def choose_server(self) -> None:
        """Open a sheet to choose what answers in the open conversation, or to hand the conversation over."""
        shell, say, current = self._shell, self._shell.say, self._current

        def row(icon: ft.IconData, name: str, server: Server | None) -> ft.Control:
            tile = shell.action(icon, name, lambda: self.history.screen.set_server(server))
            if current.server == server:
                tile.trailing = ft.Icon(ft.Icons.CHECK_ROUNDED, color=ft.Colors.PRIMARY)
            return tile

        here = ft.Icons.COMPUTER_ROUNDED if shell.page.web else ft.Icons.SMARTPHONE_ROUNDED
        rows = [row(here, self.answered_by_default(), None)]
        rows += [row(ft.Icons.LAPTOP_ROUNDED, self._remote(server), server) for server in self.links.servers.values()]
        hand = [
            shell.action(
                ft.Icons.SEND_TO_MOBILE_ROUNDED,
                say("mobile.hand_over", name=server.name),
                lambda server=server: self._hand_over(server),
            )
            for server in self.links.servers.values()
            if self.links.is_paired(server) and current.conversation and current.messages
        ]
        shell.sheet(
            theme.heading(say("mobile.place_change")),
            *rows,
            *hand,
            ft.Divider(height=1),
            shell.action(ft.Icons.MEMORY_ROUNDED, say("mobile.models"), self.models),
            shell.action(ft.Icons.ADD_LINK_ROUNDED, say("mobile.connect"), self.connect),
        )

    async def _hand_over(self, server: Server) -> None:
        shell, conversation = self._shell, self._current.conversation
        assert conversation
        await asyncio.to_thread(sync.hand_over, server, shell.app.history, conversation, settings.OWNER)
        shell.notify(shell.say("mobile.handed_over", name=server.name))

    async def show_conversation(self, conversation: str) -> None:
        """Return to the first screen and show this conversation."""
        await self._shell.home()
        await self.history.open(conversation)

    # Screens

    async def camera(self, take: Callable[[bytes], Awaitable[None]]) -> None:
        from impchat_mobile.views.camera import CameraScreen

        await self._shell.push(CameraScreen(self._shell, take))

    async def viewer(
        self, pictures: Sequence[bytes], first: int, part: Callable[[bytes], Awaitable[None]] | None
    ) -> None:
        from impchat_mobile.views.viewer import ViewerScreen

        await self._shell.push(ViewerScreen(self._shell, pictures, first, part))

    async def retouch(
        self, data: bytes, replace: Callable[[bytes], Awaitable[None]], add: Callable[[bytes], Awaitable[None]] | None
    ) -> None:
        from impchat_mobile.views.retouch import RetouchScreen

        await self._shell.push(RetouchScreen(self._shell, data, replace, add))

    async def photos(self, take: Callable[[bytes], Awaitable[None]]) -> None:
        from impchat_mobile.views.photos import PhotosScreen

        await self._shell.push(PhotosScreen(self._shell, self, take))

    async def photo_library(self) -> None:
        """Open the photo library; a picture chosen there is attached in the open conversation."""

        async def take(data: bytes) -> None:
            await self._current.attach(data)

        await self.photos(take)

    async def connect(self, link: Link | None = None) -> None:
        """Open the list of connected computers. `link`: ask the user whether to pair with it."""
        from impchat_mobile.views.connect import ConnectScreen

        if link is None or not isinstance(self._shell.top, ConnectScreen):
            await self._shell.push(ConnectScreen(self._shell, self))
        if link and isinstance(self._shell.top, ConnectScreen):
            self._shell.top.ask_about(link)

    async def export(self, conversation: str) -> None:
        """Share the conversation as a file."""
        from impchat_mobile.views.export import export

        await export(self._shell, conversation)

    async def settings(self) -> None:
        from impchat_mobile.views.settings import SettingsScreen

        await self._shell.push(SettingsScreen(self._shell, self))

    async def deleted(self) -> None:
        from impchat_mobile.views.deleted import DeletedScreen

        await self._shell.push(DeletedScreen(self._shell, self))

    async def speed(self) -> None:
        from impchat_mobile.views.speed import SpeedScreen

        await self._shell.push(SpeedScreen(self._shell))

    async def about(self) -> None:
        from impchat_mobile.views.about import AboutScreen

        await self._shell.push(AboutScreen(self._shell))

    async def leave_conversation(self) -> None:
        """Stop the running answer and show a new conversation: the open one is about to be deleted."""
        self._current.stop()
        await self._current.settled()
        await self.history.open_new()

    async def models(self) -> None:
        from impchat_mobile.views.models import ModelsScreen

        await self._shell.push(ModelsScreen(self._shell, self))

    async def eyes_free(self) -> None:
        from impchat_mobile.views.eyes_free import EyesFreeScreen

        await self._shell.push(EyesFreeScreen(self._shell, self._current))
