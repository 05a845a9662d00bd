"""Listening sockets, and uvicorn with a callback when it is ready.

In: an address and an ASGI application. Out: HTTP. This file does not know what is served.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn

from impchat.errors import SettingsError
from impchat.server import heap


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises SettingsError "web.port_busy", "web.port_refused", and
    "serve.address" if `host` is not an address of this machine."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as exc:
        raise SettingsError("serve.address", host=host) from exc
    bound = socket.socket(family)
    if os.name == "posix":  # on Windows it would let two servers share a port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(place)
        bound.listen()
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRNOTAVAIL:
            raise SettingsError("serve.address", host=host) from exc
        code = "web.port_busy" if exc.errno == errno.EADDRINUSE else "web.port_refused"
        raise SettingsError(code, port=port) from exc
    return bound


class Server(uvicorn.Server):
    """Uvicorn on a bound socket. Calls `ready` once it accepts requests. `how`: options of uvicorn.Config."""

    def __init__(self, app: Any, ready: Callable[[], None], **how: Any) -> None:
        # At shutdown, streams are cut off after one second; the core still saves the answers of conversations.
        how = {"ws": "none"} | how
        super().__init__(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, **how))
        self._ready = ready
        self._failure: Exception | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the server ends. An exception raised by `ready` ends it and is raised here."""
        heap.give_back()
        log = logging.getLogger("uvicorn.error")
        log.addFilter(self._is_news)
        try:
            super().run(sockets)
        finally:
            log.removeFilter(self._is_news)
        if self._failure:
            raise self._failure

    async def main_loop(self) -> None:
        try:
            self._ready()
        except Exception as exc:  # noqa: BLE001  # uvicorn would end without its shutdown, and show a traceback
            self._failure = exc
            self.should_exit = True
        await super().main_loop()

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Log filter. During shutdown uvicorn logs every response that it cuts off, with a traceback; then only records
        of real exceptions pass."""
        kind = record.exc_info[0] if record.exc_info else None
        return not self.should_exit or (kind is not None and issubclass(kind, Exception))


def serve(app: Any, bound: socket.socket, ready: Callable[[], None], **how: Any) -> None:
    """Serve until Ctrl-C or SIGTERM, both of which shut down cleanly. Call it from the main thread."""
    # Set here, not earlier: Ray installs its own handler when it starts.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):  # uvicorn raises both signals again after its shutdown
        Server(app, ready, **how).run(sockets=[bound])


def address(bound: socket.socket, scheme: str = "http") -> str:
    """The URL of a socket, for a browser."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
