"""A page for this machine alone: where it listens, and which requests are its own.

In: an address, HTTP requests. Out: a socket; whether a request may be read. A request must name this machine (a foreign
name that leads to 127.0.0.1 is DNS rebinding) and must not come from another site's page.
This file does not know what the page shows.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from impchat import settings
from impchat.errors import SettingsError
from impchat.server import listen

NAMES = ("127.0.0.1", "localhost", "::1")
SOCKETS = {"ws": "websockets-sansio", "ws_max_size": settings.IMAGE_BYTES + (1 << 20)}  # uvicorn's: a picture fits


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises SettingsError "web.host" for a host that is not this
    machine's own, "web.port_busy" and "web.port_refused"."""
    if host not in NAMES:
        raise SettingsError("web.host", host=host)
    return listen.bind(host, port)


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
