"""A listener for devices and programs on other machines: its socket, its certificate and its announcement.

In: an address, and an API. Out: HTTPS (or plain HTTP on request), registered and announced in the local network.
This file does not know what is served.
"""

from __future__ import annotations

import logging
import platform
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impchat.server.network import interfaces, registry, sockets, tls
from impchat.server.tokens import Access


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket, its entry in the registry, and the TLS options for uvicorn (empty: plain HTTP)."""

    bound: socket.socket
    note: registry.Listening
    tls: dict[str, Any]

    @property
    def address(self) -> str:
        """The URL to show to a person."""
        scheme = "https" if self.tls else "http"
        return next((f"{scheme}://{place}" for place in self.note.places()), sockets.address(self.bound, scheme))


@contextmanager
def opened(data: Path, access: Access, host: str, port: int, *, plain: bool) -> Iterator[Listener]:
    """A listener on `host`, which is registered inside the block and, unless it is on loopback, announced in the
    network. `plain`: HTTP without TLS, which others in the network can read.

    Raises SettingsError as `sockets.bind`, HistoryError "data.unwritable"."""
    with ExitStack() as stack:
        bound = stack.enter_context(sockets.bind(host, port))
        host, port = bound.getsockname()[:2]
        near = interfaces.addresses(host, interfaces.cards())
        how: dict[str, Any] = {}
        fingerprint = ""
        if not plain:
            shown = tls.certificate(data, near)
            fingerprint = shown.fingerprint
            how = {"ssl_certfile": str(shown.certificate), "ssl_keyfile": str(shown.key)}
        note = registry.Listening(host, port, fingerprint)
        stack.enter_context(registry.registered(data, note))
        _announce(stack, access.server, near, port, "http" if plain else "https")
        yield Listener(bound, note, how)


def _announce(stack: ExitStack, id: str, near: list[str], port: int, scheme: str) -> None:
    from impchat.server.network.mdns import Announcement

    if not any(":" not in address for address in near):
        return
    try:
        stack.callback(Announcement(id, platform.node(), near, port, {"scheme": scheme}).close)
    except OSError as exc:  # a network without multicast: pairing links still work
        logging.getLogger(__name__).warning("not announced in the local network: %s", exc)


@contextmanager
def served(door: Listener, api: Any) -> Iterator[None]:
    """Serve `api` on `door` inside the block, on a separate thread."""
    started = threading.Event()
    server = sockets.Server(api, started.set, **door.tls)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door.bound]}, name="impchat-door", daemon=True)
    thread.start()
    while not started.wait(0.1):
        assert thread.is_alive(), "uvicorn has logged why it did not start"
    try:
        yield
    finally:
        server.should_exit = True
        with suppress(KeyboardInterrupt):
            thread.join()


def names() -> list[str]:
    """The host names of this machine in its network."""
    host = platform.node().lower()
    return [host, f"{host}.local"] if host else []
