"""Keys of servers in the device's own keystore.

In: a server's id and its key. Out: the key again. Where a platform has no keystore, the key stays in the core's file
of servers, which its owner alone can read.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from flet_secure_storage import SecureStorage

from impchat.peers.servers import Server
from impchat_mobile.guard import log

_PATIENCE_S = 5.0  # with a keystore that never answers, the app must start all the same


class Keys:
    def __init__(self) -> None:
        self._store = SecureStorage()

    async def put(self, server: Server) -> Server:
        """Keep the key of `server`; the server as it is to be written to the file."""
        try:
            await asyncio.wait_for(self._store.set(_name(server), server.key), _PATIENCE_S)
            if await asyncio.wait_for(self._store.get(_name(server)), _PATIENCE_S) == server.key:
                return replace(server, key="")
        except Exception as exc:  # noqa: BLE001 - each platform refuses in its own way
            log.info("no keystore: %s", type(exc).__name__)
        return server

    async def fill(self, server: Server) -> Server:
        """`server` with its key."""
        if server.key:
            return server
        try:
            kept = await asyncio.wait_for(self._store.get(_name(server)), _PATIENCE_S)
            return replace(server, key=str(kept or ""))
        except Exception as exc:  # noqa: BLE001 - each platform refuses in its own way
            log.info("no keystore: %s", type(exc).__name__)
            return server

    async def drop(self, server: Server) -> None:
        try:
            await asyncio.wait_for(self._store.remove(_name(server)), _PATIENCE_S)
        except Exception as exc:  # noqa: BLE001 - each platform refuses in its own way
            log.info("no keystore: %s", type(exc).__name__)


def _name(server: Server) -> str:
    return f"impchat.server.{server.id}"
