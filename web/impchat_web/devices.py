"""The routes of the panel that pairs a phone.

In: an open App, and its access list. Out: pairing links as QR codes, their state, and the devices that have access.
This file does not know the content of a pairing link, or what the panel looks like.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from impchat.app import App
from impchat.errors import SettingsError
from impchat.server import phone_app
from impchat.server.network import registry
from impchat.server.tokens import Access
from impchat_web import languages, render_devices

PATH = "/devices"


def add_to(web: FastAPI, app: App, access: Access, language: str | None) -> None:
    """Add the panel's routes to `web`."""

    def spoken(request: Request) -> str:
        return languages.choose(request.headers.get("accept-language", ""), language)

    @web.post(f"{PATH}/offer")
    def offer(request: Request) -> dict[str, Any]:
        """A new code, or the reason why there is none."""
        words = spoken(request)
        holders = render_devices.holders(access.holders(), words)
        try:
            link = registry.offer(app.data, access)
        except SettingsError as error:
            return {"code": "", "html": render_devices.refused(error.sentence(words)), "holders": holders}
        seconds = access.code(link.code).seconds
        apps = phone_app.files(app.data)
        return {
            "code": link.code,
            "seconds": seconds,
            "html": render_devices.offer(link, apps, words),
            "holders": holders,
        }

    @web.post(f"{PATH}/state")
    async def state(request: Request) -> dict[str, Any]:
        """The state of the code in the request's body, with new HTML once it has been used or has expired."""
        words, sent = spoken(request), (await request.body())[:100].decode("utf-8", "replace")
        code = await run_in_threadpool(access.code, sent)
        holders = render_devices.holders(await run_in_threadpool(access.holders), words)
        told: dict[str, Any] = {"state": code.state, "seconds": code.seconds, "holders": holders}
        return told if code.state == "open" else told | {"html": render_devices.ended(code, words)}

    @web.post(f"{PATH}/revoke")
    def revoke(id: str) -> Response:
        access.revoke(id)
        return Response(status_code=204)
