"""Which screen follows which: the one place that knows them all, and what outlives each of them.

In: the shell and the talk. Out: methods that open a screen, given to the screens that need them.
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
    def __init__(self, shell: Shell, talk: OpenConversation, server: Server | None = None) -> None:
        """`server`: answers where nothing else was chosen; None: the model here."""
        from impchat_mobile.views.drawer import HistoryDrawer

        self._shell = shell
        self._talk = talk
        self.links = Links(shell.app, Keys(), server)
        self.copies = Copies(shell.app)
        self.history = HistoryDrawer(shell, talk, self)

    async def load(self) -> None:
        """Find the connected computers and the models that were on their way. What cannot be read is told."""
        try:
            await self.links.load()
            await self.copies.load()
        except ImpChatError as error:
            self._shell.fail(error)

    # Who answers

    def server_name(self) -> str:
        """Of the one that answers in the open conversation; "": this device does."""
        return self._talk.server.name if self._talk.server else self._shell.app.server

    def where(self) -> str:
        """Where the open conversation is answered, and by which model."""
        return self.there(self._talk.server) if self._talk.server else self.here()

    def there(self, server: Server) -> str:
        """This computer and its model. That the model is unverified is known once the computer has been asked."""
        unverified = self._shell.app.remote(server).info.unverified
        return self._shell.say("mobile.there", name=server.name, model=self._model(server.model, unverified))

    def here(self) -> str:
        """Where it is answered if no computer was chosen."""
        app = self._shell.app
        model = self._model(app.bundle.name if app.bundle else app.model, app.unverified)
        if app.server:  # the app below the page of `impchat web --server`
            return self._shell.say("mobile.there", name=app.server, model=model)
        return self._shell.say("mobile.here", model=model)

    def _model(self, name: str, unverified: bool) -> str:
        return f"{name} · {self._shell.say('chat.unverified')}" if unverified else name

    def server_of(self, conversation: str | None) -> Server | None:
        """The computer that was chosen for a conversation, None: for new ones, if it is still connected; None: the
        model here."""
        chosen = self._shell.preferences.servers.get(conversation or "")
        return None if chosen == "" else self.links.servers.get(chosen or "", self.links.given)

    async def answer_new_by(self, server: Server | None) -> None:
        """Let this one answer new conversations, the open one too if it is new; None: the model here."""
        shell = self._shell
        await shell.prefer(servers={**shell.preferences.servers, "": server.id if server else ""})
        if self._talk.conversation is None:
            await self.history.screen.answer_by(server)

    def place(self) -> None:
        """Choose who answers in the open conversation, and hand it over."""
        shell, say, talk = self._shell, self._shell.say, self._talk

        def row(icon: ft.IconData, name: str, server: Server | None) -> ft.Control:
            tile = shell.action(icon, name, lambda: self.history.screen.answer_by(server))
            if talk.server == server:
                tile.trailing = ft.Icon(ft.Icons.CHECK_ROUNDED, color=ft.Colors.PRIMARY)
            return tile

        here = ft.Icons.COMPUTER_ROUNDED if shell.page.web else ft.Icons.SMARTPHONE_ROUNDED
        rows = [row(here, self.here(), None)]
        rows += [row(ft.Icons.LAPTOP_ROUNDED, self.there(server), server) for server in self.links.servers.values()]
        hand = [
            shell.action(
                ft.Icons.SEND_TO_MOBILE_ROUNDED,
                say("mobile.hand_over", name=server.name),
                lambda server=server: self._hand_over(server),
            )
            for server in self.links.servers.values()
            if self.links.is_paired(server) and talk.conversation and talk.messages
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
        shell, conversation = self._shell, self._talk.conversation
        assert conversation
        await asyncio.to_thread(sync.hand_over, server, shell.app.history, conversation, settings.OWNER)
        shell.tell(shell.say("mobile.handed_over", name=server.name))

    async def home(self, conversation: str) -> None:
        """Show this conversation, above nothing else."""
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

    async def photos_alone(self) -> None:
        """The photo library; a picture taken there goes into the open conversation."""

        async def take(data: bytes) -> None:
            await self._talk.attach(data)

        await self.photos(take)

    async def connect(self, link: Link | None = None) -> None:
        """`link`: that the person is to be asked about."""
        from impchat_mobile.views.connect import ConnectScreen

        if link is None or not isinstance(self._shell.top, ConnectScreen):
            await self._shell.push(ConnectScreen(self._shell, self))
        if link and isinstance(self._shell.top, ConnectScreen):
            self._shell.top.offered(link)

    async def export(self, conversation: str) -> None:
        """Give the conversation away as one file."""
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

    async def leave(self) -> None:
        """The open conversation is about to be removed: a new one in its place."""
        self._talk.stop()
        await self._talk.settled()
        await self.history.leave()

    async def models(self) -> None:
        from impchat_mobile.views.models import ModelsScreen

        await self._shell.push(ModelsScreen(self._shell, self))

    async def eyes_free(self) -> None:
        from impchat_mobile.views.eyes_free import EyesFreeScreen

        await self._shell.push(EyesFreeScreen(self._shell, self._talk))
