"""Protection of a page that only this machine may use: its socket, a check of requests, headers for responses.

In: an address, HTTP requests, responses. Out: a socket; whether a request is allowed; responses. A request must name
this machine (another name that resolves to 127.0.0.1 is DNS rebinding) and must not come from another site's page.
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
_PARTS = ("text/javascript", "application/javascript", "text/css", "font/")  # content types of a page's parts


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises SettingsError "web.host" if `host` is not loopback, and as
    `sockets.bind`."""
    if host not in NAMES:
        raise SettingsError("web.host", host=host)
    return sockets.bind(host, port)


def is_own(headers: Headers) -> bool:
    """Whether the request names this machine and does not come from another site's page."""
    host = headers.get("host", "")
    try:
        if urlsplit(f"//{host}").hostname not in NAMES:
            return False
    except ValueError:  # an incomplete IPv6 address
        return False
    origin = headers.get("origin")  # absent from a plain GET and from programs other than browsers
    if origin is not None and origin != f"http://{host}":
        return False
    # A link on another site may open the page itself, but nothing else.
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none") or (
        headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """The response to a request that is not `is_own`: 403, or close code 1008 for a WebSocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await PlainTextResponse("This address answers only its own page on this machine.", 403)(scope, receive, send)


class ResponseHeaders:
    """An ASGI `send` that adds `headers` to every response and replaces the HTML of a page by `change(html)`.

    `documents`: headers that a browser ignores on scripts, styles and fonts, which therefore do not get them."""

    def __init__(
        self,
        send: Send,
        headers: Mapping[str, str],
        change: Callable[[bytes], bytes],
        documents: Mapping[str, str] | None = None,
    ) -> None:
        self._send = send
        self._headers = headers
        self._documents = documents or {}
        self._change = change
        self._page: Message | None = None  # the start of an HTML response, held back until the body is complete
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(self._headers)
            kind = headers.get("content-type", "")
            if not kind.startswith(_PARTS):
                headers.update(self._documents)
            del headers["access-control-allow-origin"]  # a framework may have allowed any site
            if kind.startswith("text/html"):
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
