"""What every request passes before it reaches the page, and what every response carries on its way back.

In: HTTP requests. Out: the same, or a refusal. The page is for this machine alone (`loopback`), and a request must ask
for something that ImpChat-Web uses; of Gradio's many routes (uploads, files, proxies, run history) most are not.
This file does not know conversations or owners.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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
            await self._app(scope, receive, _armour(send, self._head))


def _armour(send: Send, head: str) -> loopback.Armour:
    """Puts the headers on a response, the head into a page and the nonce on its scripts."""
    nonce = secrets.token_urlsafe(16)

    def change(page: bytes) -> bytes:
        # Gradio's page holds the page's own description, in which "<" is written \u003c, and no person's text.
        text = page.decode().replace("</head>", head + "</head>")
        return text.replace("<script", f'<script nonce="{nonce}"').encode()

    return loopback.Armour(send, _HEADERS | {"content-security-policy": _POLICY.format(nonce=nonce)}, change)
