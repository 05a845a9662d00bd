"""A registry of the running servers of a data folder, so that any process can create a pairing link.

In: the address of a running server. Out: a file that is valid while the server runs, and pairing links.
This file does not know what is served, nor how a link is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from impchat import locks, paths
from impchat.errors import HistoryError, SettingsError
from impchat.peers.pairing import Link
from impchat.server.network import interfaces
from impchat.server.tokens import Access


@dataclass(frozen=True, slots=True)
class Listening:
    """A running server."""

    host: str  # an address of this machine, or the unspecified address
    port: int
    fingerprint: str  # SHA-256 of its certificate in hex; "": plain HTTP

    def places(self) -> list[str]:
        """host:port of each address at which devices can reach it now, most likely first."""
        found = interfaces.addresses(self.host, interfaces.cards())
        return [f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}" for address in found]


@contextmanager
def registered(data: Path, server: Listening) -> Iterator[None]:
    """Register `server` inside the block, so that `find` returns it. Raises HistoryError "data.unwritable"."""
    folder = paths.ensure_data_dir(paths.server_dir(data))
    note = folder / f"listening-{server.port}.json"
    lock = locks.FileLock(note.with_suffix(".lock"))
    try:
        if not lock.acquire(1.0):
            raise HistoryError("data.unwritable", path=str(note))
        note.write_text(json.dumps(asdict(server)), encoding="utf-8")
    except OSError as exc:
        lock.release()
        raise HistoryError("data.unwritable", path=str(note)) from exc
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def find(data: Path) -> Listening:
    """A running server of this data folder that other devices can reach.

    Raises SettingsError "pair.loopback" if there is none; one on loopback does not count."""
    for note in sorted(paths.server_dir(data).glob("listening-*.json")):
        with suppress(OSError, ValueError, TypeError):  # just deleted, or incomplete
            if locks.is_held(note.with_suffix(".lock")):
                server = Listening(**json.loads(note.read_text(encoding="utf-8")))
                if server.places():
                    return server
    raise SettingsError("pair.loopback")


def offer(data: Path, access: Access) -> Link:
    """A pairing link with a new one-time code. Raises SettingsError "pair.loopback"."""
    server = find(data)
    return Link(tuple(server.places()), access.offer(), server.fingerprint)
