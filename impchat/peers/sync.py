"""The client of a paired computer's device routes: list its models, and copy conversations in both directions.

In: a paired `Server` and the history of this device. Out: values, and conversations merged on either side. Messages
keep their uuids, so repeated transfers neither lose nor duplicate anything.
This file does not know how the server was found, nor how its data is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from impchat import settings
from impchat.bundle import MANIFEST
from impchat.errors import RequestError
from impchat.history import archive
from impchat.history.store import History
from impchat.messages import Conversation
from impchat.peers import servers
from impchat.peers.servers import Server

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offer:
    """A model on the computer."""

    id: str
    name: str
    licence: str
    bytes: int
    sha256: str  # of its manifest, which names the hashes of all other files


@dataclass(frozen=True, slots=True)
class RemoteConversation:
    """A conversation on the computer."""

    uuid: str
    title: str
    updated_utc: str


def offers(server: Server) -> list[Offer]:
    """The models of the server. Raises RequestError "device.unreachable", "device.refused" (no longer paired),
    "device.strange" (an invalid response)."""

    def read(answer: Any) -> list[Offer]:
        found = []
        for row in answer["bundles"]:
            files = {str(file["name"]): file for file in row["files"]}
            size = sum(int(file["bytes"]) for file in files.values())
            found.append(Offer(row["id"], row["name"], row["licence"], size, files[MANIFEST]["sha256"]))
        return found

    return _asked(server, "GET", "/bundles", lambda response: read(response.json()))


def conversations(server: Server) -> list[RemoteConversation]:
    """The conversations of the server, pinned ones on top, then latest first. Raises as `offers`."""

    def read(answer: Any) -> list[RemoteConversation]:
        return [RemoteConversation(row["uuid"], row["title"], row["updated_utc"]) for row in answer["conversations"]]

    return _asked(server, "GET", "/conversations", lambda response: read(response.json()))


def hand_over(server: Server, history: History, conversation: str, owner: str) -> None:
    """Copy a conversation with its pictures to the server. Raises as `offers`, and HistoryError."""
    data = archive.export_zip(history, conversation, owner)
    _asked(server, "PUT", f"/conversations/{conversation}", lambda response: None, data)


def bring(server: Server, history: History, conversation: str, owner: str) -> Conversation:
    """Copy a conversation of the server into `history`. Raises as `offers`, and HistoryError."""
    data = _asked(server, "GET", f"/conversations/{conversation}", lambda response: response.content)
    return archive.import_zip(history, data, owner)


def unpair(server: Server) -> None:
    """Revoke this device's token on the server. Raises as `offers`."""
    _asked(server, "DELETE", "/pair", lambda response: None)


def place(url: str) -> str:
    """The base URL of the device routes of a server whose API is at `url`."""
    return url.removesuffix("/v1")


def client(server: Server) -> httpx.Client:
    """An HTTP client that trusts only the server's certificate and sends the device's token."""
    import httpx

    headers = {"authorization": f"Bearer {server.key}"} if server.key else {}
    waits = httpx.Timeout(settings.REMOTE_SILENCE_S, connect=settings.REMOTE_CONNECT_S)
    return httpx.Client(verify=servers.trust(server.certificate), headers=headers, timeout=waits, trust_env=False)


def _asked(server: Server, method: str, path: str, read: Callable[[httpx.Response], T], data: bytes | None = None) -> T:
    """Send a request to the first address that answers, and return `read(response)`."""
    import httpx

    with client(server) as http:
        for url in server.urls:
            try:
                response = http.request(method, place(url) + path, content=data)
            except httpx.HTTPError:
                continue
            if response.status_code in (401, 403):
                raise RequestError("device.refused", name=server.name)
            try:
                response.raise_for_status()
                return read(response)
            except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as exc:
                raise RequestError("device.strange", name=server.name) from exc
    raise RequestError("device.unreachable", name=server.name)
