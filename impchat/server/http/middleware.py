"""Checks of every request before it is parsed: host, origin, token, size and speed.

In: HTTP requests. Out: the same requests with a normalised path, or an error response. This file does not know what a
request means.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impchat import settings
from impchat.errors import RequestError
from impchat.server import phone_app
from impchat.server.http import loopback
from impchat.server.http.errors import refusal
from impchat.server.tokens import Access, Holder

OPEN = (("GET", "/health"), ("POST", "/pair"), ("GET", phone_app.PATH))  # without a token
SHORT = ("/chat/completions", "/models", "/images/prefill")  # under /v1, but accepted without it


class AccessMiddleware:
    """ASGI middleware. `hosts`: names of this server in addition to its own addresses. `origins`: other sites whose
    pages may send requests; "*": all. `access`: finds the holder of a token, passed on as `request.state.holder`.
    `token_needed`: refuse requests without a valid token, except those in `OPEN`."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str],
        origins: Collection[str],
        access: Access | None,
        token_needed: bool,
    ) -> None:
        assert access or not token_needed, "somebody must be able to pass"
        self._app = app
        self._hosts = {*loopback.NAMES, *(host.lower() for host in hosts)}
        self._origins = {*origins}
        self._access = access
        self._token_needed = token_needed
        self._held = 0  # body bytes of all open requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = _normal(scope["path"])
        scope = {**scope, "path": path, "raw_path": path.encode("utf-8", "replace")}
        headers = Headers(scope=scope)
        try:
            self._check_names(scope, headers)
            holder, limit = await self._holder(headers), settings.REQUEST_BYTES
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
        body = _Body(receive, limit, self)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._held -= body.size

    def hold(self, count: int) -> None:
        """Count `count` more bytes of a request body. Raises RequestError "request.busy" if all open requests together
        exceed `settings.REQUESTS_BYTES`."""
        self._held += count
        if self._held > settings.REQUESTS_BYTES:
            raise RequestError("request.busy", seconds=1)

    def _check_names(self, scope: Scope, headers: Headers) -> None:
        """Raises RequestError "request.host" if the host is not this server (DNS rebinding), "request.origin" for a
        page of another site that is not in `origins`."""
        host = headers.get("host", "")
        if not (_is_at(_name(host), scope.get("server")) or _name(host) in self._hosts):
            raise RequestError("request.host", host=host)
        origin = headers.get("origin")
        own = f"{scope['scheme']}://{host}".lower()
        if origin is not None and origin.lower() != own and not self._origins & {origin, "*"}:
            raise RequestError("request.origin", origin=origin)

    async def _holder(self, headers: Headers) -> Holder | None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if not self._access or kind.lower() != "bearer":
            return None
        return await run_in_threadpool(self._access.holder, token.strip())


def _normal(path: str) -> str:
    """The canonical form of a path: clients add slashes or leave out /v1."""
    path = re.sub("/{2,}", "/", path)
    path = path.rstrip("/") if len(path) > 1 else path
    return f"/v1{path}" if path in SHORT or path.startswith("/models/") else path


def _is_open(scope: Scope) -> bool:
    path = phone_app.PATH if scope["path"].startswith(phone_app.PATH) else scope["path"]
    return ("GET" if scope["method"] == "HEAD" else scope["method"], path) in OPEN


def _name(host: str) -> str:
    """The name in a Host header, without the port; "" if the header is invalid."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # an incomplete IPv6 address
        return ""


def _is_at(name: str, server: tuple[str, int | None] | None) -> bool:
    """Whether `name` is the address at which this connection arrived."""
    try:
        return server is not None and _address(name) == _address(server[0])
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The parsed address. A dual-stack socket reports IPv4 addresses as ::ffff:192.0.2.1; these become IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def _check_size(count: int, limit: int) -> None:
    if count > limit:
        raise RequestError("request.too_large", limit=limit >> 20)


class _Body:
    """Wraps the ASGI `receive` of a request to limit the size of its body, and the time that it may take."""

    def __init__(self, receive: Receive, limit: int, gate: AccessMiddleware) -> None:
        self._receive = receive
        self._limit = limit
        self._gate = gate
        self._begun = time.monotonic()
        self._whole = False
        self.size = 0

    async def receive(self) -> Message:
        if self._whole:  # the next message is the disconnect, which may take any time
            return await self._receive()
        try:
            async with asyncio.timeout(settings.BODY_SILENCE_S):
                message = await self._receive()
        except TimeoutError as exc:
            raise RequestError("request.slow") from exc
        count = len(message.get("body", b""))
        self.size += count
        self._whole = not message.get("more_body", False)
        self._gate.hold(count)
        _check_size(self.size, self._limit)
        late_s = time.monotonic() - self._begun - settings.BODY_SILENCE_S
        if not self._whole and self.size < late_s * settings.BODY_LEAST_BYTES_S:
            raise RequestError("request.slow")
        return message
