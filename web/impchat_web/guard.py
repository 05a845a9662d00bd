"""Middleware that checks every request before it reaches the page and adds headers to every response.

In: HTTP requests. Out: the same, or a refusal. The page is for this machine only (`loopback`), and only paths that
ImpChat-Web uses are allowed; most of Gradio's routes (uploads, files, proxies, run history) are not.
This file does not know conversations or owners.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from impchat.server.http import loopback

_GRADIO = (
    "/assets/",
    "/static/",
    "/theme.css",
    "/config",
    "/gradio_api/run/",
    "/gradio_api/app_id",  # polled by a page that lost its server
    "/gradio_api/heartbeat/",
    "/gradio_api/startup-events",
)

# Gradio compiles its templates and event functions in the browser, hence 'unsafe-eval'; it sets style attributes, hence
# 'unsafe-inline' for styles. Scripts in markup run only with the nonce, so no text can add one.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' blob: data:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "worker-src 'none'",  # the script of a worker would need this policy in its own response
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_DOCUMENTS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "geolocation=(), microphone=(), camera=()",
}

_HASHED = ("/assets/", "/theme.css")  # of Gradio, with a hash of the file in the path
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


class Guard:
    """ASGI middleware. `ours`: path prefixes that ImpChat-Web itself answers; `others`: paths of other front ends,
    which set their own policy; `dress`: changes Gradio's page (its HTML, the request's Accept-Language) into ours."""

    def __init__(
        self, app: ASGIApp, ours: tuple[str, ...], others: tuple[str, ...], dress: Callable[[str, str], str]
    ) -> None:
        self._app = app
        self._paths = _GRADIO + ours
        self._others = others
        self._dress = dress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        prefix = next((path for path in self._others if f"{scope['path']}/".startswith(f"{path}/")), None)
        if not loopback.is_own(Headers(scope=scope)) or (scope["type"] != "http" and prefix is None):
            await loopback.refuse(scope, receive, send)
        elif prefix == scope["path"]:
            await RedirectResponse(f"{prefix}/", 308)(scope, receive, send)
        elif prefix is not None:
            await self._app(scope, receive, send)
        elif scope["path"] != "/" and not scope["path"].startswith(self._paths):
            await PlainTextResponse("Not found.", 404)(scope, receive, send)
        else:
            await self._app(scope, receive, self._armour(scope, send))

    def _armour(self, scope: Scope, send: Send) -> loopback.ResponseHeaders:
        """Adds the headers to a response, and the nonce to the scripts of a page."""
        nonce = secrets.token_urlsafe(16)
        spoken = Headers(scope=scope).get("accept-language", "")

        def change(page: bytes) -> bytes:
            # Gradio's page contains the page's description, in which "<" is written \u003c, and no text by users.
            return self._dress(page.decode(), spoken).replace("<script", f'<script nonce="{nonce}"').encode()

        headers = _HEADERS | (_FOREVER if scope["path"].startswith(_HASHED) else {})
        documents = {name: value.format(nonce=nonce) for name, value in _DOCUMENTS.items()}
        return loopback.ResponseHeaders(send, headers, change, documents)
