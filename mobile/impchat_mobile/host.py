"""The app in a browser on this machine: the page, its fonts, and the middleware for all requests.

In: Flet's entry point for a page, or an open App. Out: an ASGI app that serves only this machine, and whose page may
not load anything from other sites. It is a site of its own (`impchat mobile`), or below a path of another site
(`/mobile` of `impchat web`).
This file does not know what is on the screens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import flet as ft
import flet_web.fastapi as flet_web
from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from impchat.app import App
from impchat.server.http import loopback
from impchat_mobile import launch, theme
from impchat_mobile.launch import ASSETS

# Fonts of the system, served in place of those that Flutter requests for characters that its own fonts lack.
CHINESE = (
    Path("/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf"),  # a fifth of the size of the next one
    Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"),
    Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"),
)
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'",  # Flet's page starts the app by inline scripts
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' blob: data:",
        "font-src 'self' data:",
        "connect-src 'self' blob: data:",
        "media-src 'self' blob: mediastream:",
        "worker-src 'self' blob:",
        "manifest-src 'self'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # With Flet's cross-origin isolation, Flutter renders on several threads. That hung in one of 16 starts or showed
    # wrong letters; on one thread it does neither.
    "cross-origin-embedder-policy": "unsafe-none",
}


def build_app(main: Callable[[ft.Page], Awaitable[None]], prefix: str = "") -> FastAPI:
    """The site, below the path `prefix`."""
    site: FastAPI = flet_web.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @site.get(f"{prefix}/assets/fonts/chinese")
    def chinese() -> Response:
        found = next((path for path in CHINESE if path.is_file()), None)
        if found is None:
            return Response(status_code=404)
        return FileResponse(found, media_type="font/ttf", headers={"cache-control": "max-age=86400"})

    @site.get(f"{prefix}/assets/fonts/{{family}}/{{rest:path}}")
    def font(family: str, rest: str) -> Response:
        """Flutter requests a font in a hundred parts: all redirect to one file, which is downloaded once."""
        if family.startswith(("notosanssc", "notosanshk", "notosanstc", "notosansjp")):
            return RedirectResponse(f"{prefix}/assets/fonts/chinese")
        return Response(status_code=404)

    site.mount(f"{prefix}/", flet_web.app(main, no_cdn=True, assets_dir=str(ASSETS), app_name="ImpChat"))
    site.add_middleware(LoopbackGuard)
    return site


def mounted(app: App, language: str | None, prefix: str) -> FastAPI:
    """The app below the path `prefix` of another site, which has opened `app` and runs the lifespan of the returned
    app. `language` None: the browser's."""

    async def main(page: ft.Page) -> None:
        await launch.start(page, lambda: app, language, shares=True)

    return build_app(main, prefix)


class LoopbackGuard:
    """ASGI middleware: refuses requests that are not from this machine's own page, and adds security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif not loopback.is_own(Headers(scope=scope)):
            await loopback.refuse(scope, receive, send)
        else:
            with suppress(WebSocketDisconnect):  # the page was closed while a message was being sent
                await self._app(scope, receive, loopback.ResponseHeaders(send, _HEADERS, _with_background))


def _with_background(page: bytes) -> bytes:
    """Flet's page with the app's background colour, instead of white, until Flutter draws the first frame."""
    light, dark = theme.background(dark=False), theme.background(dark=True)
    style = (
        f"html, #loading {{ background: {light} }} #loading img {{ width: 72px }}"
        f"@media (prefers-color-scheme: dark) {{ html, #loading {{ background: {dark} }} }}"
    )
    return page.replace(b"</body>", f"<style>{style}</style></body>".encode())
