"""What every request passes before it reaches the page, and what every response carries on its way back.

In: HTTP requests. Out: the same, or a refusal. The page is for this machine alone (`loopback`), and a request must ask
for something that ImpChat-Web uses; of Gradio's many routes (uploads, files, proxies, run history) most are not.
This file does not know conversations or owners.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impchat.server import loopback

_GRADIO = (
    "/assets/",
    "/static/",
    "/theme.css",
    "/config",
    "/gradio_api/run/",
    "/gradio_api/app_id",  # asked by a page that lost its server, until it is back
    "/gradio_api/heartbeat/",
    "/gradio_api/startup-events",
)

# Gradio compiles its templates and event functions in the browser, hence 'unsafe-eval'; it styles elements in place,
# hence 'unsafe-inline' for styles. Scripts in markup run only with the nonce, so no text can bring one along.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' blob: data:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "geolocation=(), microphone=(), camera=()",
}


class Guard:
    """ASGI middleware. `ours` are the beginnings of the paths that ImpChat-Web itself answers; `beside` the paths of
    other front ends, which bring a policy of their own; `head` is HTML for the head of every page, where a script runs
    before Gradio's."""

    def __init__(self, app: ASGIApp, ours: tuple[str, ...], beside: tuple[str, ...], head: str) -> None:
        self._app = app
        self._paths = _GRADIO + ours
        self._beside = beside
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        beside = next((path for path in self._beside if f"{scope['path']}/".startswith(f"{path}/")), None)
        if not loopback.is_own(Headers(scope=scope)) or (scope["type"] != "http" and beside is None):
            await loopback.refuse(scope, receive, send)
        elif beside == scope["path"]:
            await RedirectResponse(f"{beside}/", 308)(scope, receive, send)
        elif beside is not None:
            await self._app(scope, receive, send)
        elif scope["path"] != "/" and not scope["path"].startswith(self._paths):
            await PlainTextResponse("Not found.", 404)(scope, receive, send)
        else:
            await self._app(scope, receive, _Armour(send, self._head))


class _Armour:
    """Puts the headers on a response, the head into a page and the nonce on its scripts."""

    def __init__(self, send: Send, head: str) -> None:
        self._send = send
        self._head = head
        self._nonce = secrets.token_urlsafe(16)
        self._page: Message | None = None  # the start of a response whose body is a page, held back until it is whole
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = _POLICY.format(nonce=self._nonce)
            headers.update(_HEADERS)
            if headers.get("content-type", "").startswith("text/html"):
                self._page = message
                return
        elif self._page is not None:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            # Gradio's page holds the page's own description, in which "<" is written \u003c, and no person's text.
            body = self._body.decode().replace("</head>", self._head + "</head>")
            self._body = body.replace("<script", f'<script nonce="{self._nonce}"').encode()
            MutableHeaders(scope=self._page)["content-length"] = str(len(self._body))
            await self._send(self._page)
            message = {"type": "http.response.body", "body": self._body}
        await self._send(message)
