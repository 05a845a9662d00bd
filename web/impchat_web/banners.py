"""The banners above every conversation: the demo or an unverified model answers, and which models could be used.

In: an open App. Out: HTML, and a route that starts an unverified model at the user's request.
This file does not know the page.
"""

from __future__ import annotations

from html import escape

from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool

from impchat.app import App
from impchat.bundle import Bundle
from impchat.models import library
from impchat.texts import say

PATH = "/unverified"


def html(app: App, language: str) -> str:
    """The banner of an unverified model, which cannot be hidden, or of the demo, with models that could replace it."""
    if app.unverified:
        return _banner("unverified", "chat.unverified", say("chat.unverified_says", language), "", language)
    if not app.demo:
        return ""
    hide = escape(say("chat.hide", language))
    close = (
        f'<button type="button" class="tool close" data-do="hide-banner" aria-label="{hide}" title="{hide}"></button>'
    )
    found = library.models(app.data) if app.bundle else []  # a server has only its own model
    offers = [_offer(row.bundle, language) for row in found if row.bundle and row.bundle.unverified]
    return _banner("demo", "chat.demo", say("chat.demo_says", language), close, language) + "".join(offers)


def _offer(bundle: Bundle, language: str) -> str:
    says = say("chat.unverified_here", language, name=bundle.name, figures=bundle.unverified)
    use = (
        f'<button type="button" class="ask" data-do="use-unverified" data-model="{escape(bundle.id)}">'
        f"{escape(say('chat.use_unverified', language))}</button>"
    )
    return _banner("unverified", "chat.unverified", says, use, language)


def _banner(kind: str, title: str, says: str, button: str, language: str) -> str:
    return (
        f'<div class="banner {kind}" role="note"><b>{escape(say(title, language))}</b>'
        f"<span>{escape(says)}</span>{button}</div>"
    )


def add_to(web: FastAPI, app: App) -> None:
    @web.post(PATH)
    async def use(model: str) -> Response:
        """Use this unverified model from now on."""
        if app.bundle is None:  # a server answers
            return Response(status_code=404)
        bundle = await run_in_threadpool(library.choose, app.data, model, unverified=True)
        await run_in_threadpool(app.run_with, bundle, app.resources)
        return Response(status_code=204)
