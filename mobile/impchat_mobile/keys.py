"""API keys of servers, in the keystore of the device.

In: a server with its key. Out: the key. On a platform without a keystore, the key stays in the core's file of servers,
which only its owner can read.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from flet_secure_storage import SecureStorage

from impchat.peers.servers import Server
from impchat_mobile.guard import log

_TIMEOUT_S = 5.0  # maximum wait for a keystore: the app must start even if it never answers


class Keys:
    def __init__(self) -> None:
        self._store = SecureStorage()

    async def put(self, server: Server) -> Server:
        """Store the key of `server`. Returns the server to save in the file, without its key if the keystore has it."""
        try:
            await asyncio.wait_for(self._store.set(_name(server), server.key), _TIMEOUT_S)
            if await asyncio.wait_for(self._store.get(_name(server)), _TIMEOUT_S) == server.key:
                return replace(server, key="")
        except Exception as exc:  # noqa: BLE001 - each platform raises errors of its own
            log.info("no keystore: %s", type(exc).__name__)
        return server

    async def fill(self, server: Server) -> Server:
        """`server` with its key from the keystore, unless it has one."""
        if server.key:
            return server
        try:
            kept = await asyncio.wait_for(self._store.get(_name(server)), _TIMEOUT_S)
            return replace(server, key=str(kept or ""))
        except Exception as exc:  # noqa: BLE001 - each platform raises errors of its own
            log.info("no keystore: %s", type(exc).__name__)
            return server

    async def remove(self, server: Server) -> None:
        try:
            await asyncio.wait_for(self._store.remove(_name(server)), _TIMEOUT_S)
        except Exception as exc:  # noqa: BLE001 - each platform raises errors of its own
            log.info("no keystore: %s", type(exc).__name__)


def _name(server: Server) -> str:
    return f"impchat.server.{server.id}"
