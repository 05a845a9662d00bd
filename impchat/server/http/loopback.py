"""A page for this machine alone: where it listens, which requests are its own, and what its responses carry.

In: an address, HTTP requests, responses. Out: a socket; whether a request may be read; responses. A request must name
this machine (a foreign name that leads to 127.0.0.1 is DNS rebinding) and must not come from another site's page.
This file does not know what the page shows.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from impchat import settings
from impchat.errors import SettingsError
from impchat.server.network import sockets

NAMES = ("127.0.0.1", "localhost", "::1")
SOCKETS = {"ws": "websockets-sansio", "ws_max_size": settings.IMAGE_BYTES + (1 << 20)}  # uvicorn's: a picture fits


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises SettingsError "web.host" for a host that is not this
    machine's own, "web.port_busy" and "web.port_refused"."""
    if host not in NAMES:
        raise SettingsError("web.host", host=host)
    return sockets.bind(host, port)


def is_own(headers: Headers) -> bool:
    """Whether the request names this machine and comes from no other site's page."""
    host = headers.get("host", "")
    try:
        if urlsplit(f"//{host}").hostname not in NAMES:
            return False
    except ValueError:  # half an IPv6 address
        return False
    origin = headers.get("origin")  # absent on a plain GET and from programs that are no browser
    if origin is not None and origin != f"http://{host}":
        return False
    # A link on another site may open the page itself, and nothing else.
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none") or (
        headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """What a request that is not is told."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await PlainTextResponse("This address answers only its own page on this machine.", 403)(scope, receive, send)


class ResponseHeaders:
    """A `send` that puts `headers` on every response, and what `change` makes of it in the place of a page's HTML."""

    def __init__(self, send: Send, headers: Mapping[str, str], change: Callable[[bytes], bytes]) -> None:
        self._send = send
        self._headers = headers
        self._change = change
        self._page: Message | None = None  # the start of a response whose body is a page, held back until it is whole
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(self._headers)
            del headers["access-control-allow-origin"]  # a framework may let any site read along
            if headers.get("content-type", "").startswith("text/html"):
                self._page = message
                return
        elif self._page is not None:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = self._change(self._body)
            MutableHeaders(scope=self._page)["content-length"] = str(len(body))
            await self._send(self._page)
            message = {"type": "http.response.body", "body": body}
        await self._send(message)
