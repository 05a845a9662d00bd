"""What every request passes before it is read: whether it names this server, comes from no other site's page, is of
bearable size, and shows a token where one is needed.

In: HTTP requests. Out: the same, or a refusal. This file does not know what is asked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impchat import settings
from impchat.errors import RequestError
from impchat.server import loopback, phone_app
from impchat.server.access import Access, Holder
from impchat.server.refusals import refusal

OPEN = (("GET", "/health"), ("POST", "/pair"), ("GET", phone_app.PATH), ("HEAD", phone_app.PATH))  # without a token


class Gate:
    """ASGI middleware. `hosts`: names of this server beside its own addresses. `access`: who holds a token; the scope's
    state says who asks. `token_needed`: nobody else passes, but to what says nothing and does nothing."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], access: Access | None, token_needed: bool) -> None:
        assert access or not token_needed, "somebody must be able to pass"
        self._app = app
        self._hosts = {*loopback.NAMES, *(host.lower() for host in hosts)}
        self._access = access
        self._token_needed = token_needed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_names(scope, headers)
            holder, limit = self._holder(headers), settings.REQUEST_BYTES
            if self._token_needed and holder is None:
                if not _is_open(scope):
                    raise RequestError("request.token")
                limit = settings.STRANGER_BYTES
            if headers.get("content-length", "").isdecimal():
                _check_size(int(headers["content-length"]), limit)
            scope.setdefault("state", {})["holder"] = holder
        except RequestError as error:
            await refusal(error)(scope, receive, send)
            return
        await self._app(scope, _counted(receive, limit), send)

    def _check_names(self, scope: Scope, headers: Headers) -> None:
        """A foreign name that leads to this machine is DNS rebinding. A page of another site has no business here."""
        host = headers.get("host", "")
        if not (_is_at(_name(host), scope.get("server")) or _name(host) in self._hosts):
            raise RequestError("request.host", host=host)
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}".lower():
            raise RequestError("request.host", host=origin)

    def _holder(self, headers: Headers) -> Holder | None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if not self._access or kind.lower() != "bearer":
            return None
        return self._access.holder(token.strip())


def _is_open(scope: Scope) -> bool:
    path = phone_app.PATH if scope["path"].startswith(phone_app.PATH) else scope["path"]
    return (scope["method"], path) in OPEN


def _name(host: str) -> str:
    """The name in a Host header, without the port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


def _is_at(name: str, server: tuple[str, int | None] | None) -> bool:
    """Whether `name` is the address at which this connection arrived."""
    try:
        return server is not None and _address(name) == _address(server[0])
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """A socket of both kinds shows IPv4 addresses as ::ffff:192.0.2.1."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def _check_size(count: int, limit: int) -> None:
    if count > limit:
        raise RequestError("request.too_large", limit=limit >> 20)


def _counted(receive: Receive, limit: int) -> Receive:
    """`receive` of a body that did not say how large it is."""
    total = 0

    async def counting() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        try:
            _check_size(total, limit)
        except RequestError as error:
            raise HTTPException(413, str(error)) from error  # the one exception that passes FastAPI's reading of a body
        return message

    return counting
