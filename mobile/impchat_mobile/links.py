"""The computers that this device is connected to.

In: pairing links, including one that opened the app, and addresses with keys. Out: servers with their keys.
This file does not know Flet, nor how keys are stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

from impchat.app import App
from impchat.engines.remote.capabilities import ServerInfo
from impchat.errors import EngineError, ImpChatError
from impchat.peers import pairing, servers, sync
from impchat.peers.pairing import Link
from impchat.peers.servers import Server


def pairing_link(route: str) -> Link | None:
    """The pairing link that opened the app, read from Flet's route, which lacks the link's scheme and host. None: the
    app was opened without a link.

    Raises RequestError "pair.link"."""
    query = urlsplit(route).query
    return Link.read(f"{pairing.SCHEME}://pair?{query}") if query else None


class KeyStore(Protocol):
    async def put(self, server: Server) -> Server: ...
    async def fill(self, server: Server) -> Server: ...
    async def remove(self, server: Server) -> None: ...


class Links:
    """All methods are called on the event loop."""

    def __init__(self, app: App, keys: KeyStore, given: Server | None = None) -> None:
        """`given`: a server that is listed but not saved."""
        self._app = app
        self._keys = keys
        self.given = given
        self.servers: dict[str, Server] = {}  # id -> server, oldest first

    async def load(self) -> None:
        """Read the saved servers. Raises as `servers.load`."""
        self.servers = {self.given.id: self.given} if self.given else {}
        kept = await asyncio.to_thread(servers.load, self._app.data)
        self.servers = {server.id: await self._keys.fill(server) for server in kept} | self.servers

    async def pair(self, link: Link) -> Server:
        """Pair with the computer that shows `link`. Raises as `pairing.pair`."""
        server = await asyncio.to_thread(pairing.pair, link, f"ImpChat ({platform.node() or 'phone'})")
        await self._keep(server)
        return server

    async def add(self, address: str, key: str, model: str) -> Server | tuple[str, ...]:
        """Connect to any server with OpenAI's API, and save it if the connection succeeds. If `model` is blank and the
        server has several models, returns their names and saves nothing.

        Raises SettingsError "server.address" and "server.key", and EngineError as `RemoteEngine.connect`."""
        server = servers.at(address, servers.key_in(key), model.strip())
        try:
            facts = await self.facts(server)
        except EngineError as error:
            if error.code != "remote.several_models":
                raise
            return tuple(str(error.values["known"]).split(", "))
        if not server.model and facts.models:
            server = replace(server, model=facts.models[0])
        await self._keep(server)
        return server

    async def facts(self, server: Server) -> ServerInfo:
        """Connect to `server` and return what it reports. Raises EngineError as `RemoteEngine.connect`."""
        return await asyncio.to_thread(lambda: self._app.remote(server).connect())

    async def _keep(self, server: Server) -> None:
        kept = await self._keys.put(server)
        await asyncio.to_thread(servers.save, self._app.data, kept)
        self.servers[server.id] = server

    @staticmethod
    def is_paired(server: Server) -> bool:
        """Whether `server` is a paired computer, which has issued a token to this device."""
        return bool(server.certificate) or server.key.startswith(pairing.SCHEME)

    async def remove(self, server: Server) -> None:
        """Forget a server. A paired one is notified if it can be reached."""
        if self.is_paired(server):
            with contextlib.suppress(ImpChatError):
                await asyncio.to_thread(sync.unpair, server)
        await self._keys.remove(server)
        await asyncio.to_thread(servers.remove, self._app.data, server.id)
        self.servers.pop(server.id, None)
