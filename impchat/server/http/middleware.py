"""What every request passes before it is read: whether it names this server, comes from no page of another site than
those that may, is of bearable size and speed, and shows a token where one is needed.

In: HTTP requests. Out: the same with a path as the API names it, or a refusal. This file does not know what is asked.
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
SHORT = ("/chat/completions", "/models", "/images/prefill")  # these are under /v1 and may be asked for without it


class AccessMiddleware:
    """ASGI middleware. `hosts`: names of this server beside its own addresses. `origins`: other sites whose pages pass.
    `access`: who holds a token; the scope's state says who asks. `token_needed`: nobody else passes, but to what says
    nothing and does nothing."""

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
        self._held = 0  # bytes of all requests that are open

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
        """`count` bytes more of a request have come. Raises RequestError "request.busy"."""
        self._held += count
        if self._held > settings.REQUESTS_BYTES:
            raise RequestError("request.busy", seconds=1)

    def _check_names(self, scope: Scope, headers: Headers) -> None:
        """A foreign name that leads to this machine is DNS rebinding. A page of another site has no business here."""
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
    """A path as the API names it: clients join an address and a path in several ways."""
    path = re.sub("/{2,}", "/", path)
    path = path.rstrip("/") if len(path) > 1 else path
    return f"/v1{path}" if path in SHORT or path.startswith("/models/") else path


def _is_open(scope: Scope) -> bool:
    path = phone_app.PATH if scope["path"].startswith(phone_app.PATH) else scope["path"]
    return ("GET" if scope["method"] == "HEAD" else scope["method"], path) in OPEN


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


class _Body:
    """`receive` of a body: counts what comes, however long it said that it is, and does not wait for it for ever."""

    def __init__(self, receive: Receive, limit: int, gate: AccessMiddleware) -> None:
        self._receive = receive
        self._limit = limit
        self._gate = gate
        self._begun = time.monotonic()
        self._whole = False
        self.size = 0

    async def receive(self) -> Message:
        if self._whole:  # what follows is that the client leaves
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
