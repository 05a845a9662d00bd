"""What stands between Flet and every handler: an error becomes a sentence, and the page stays.

In: handlers, plain or coroutines, with or without the event as their argument. Out: handlers for Flet, for which an
error that gets through replaces the whole page.
This file does not know any screen.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable

import flet as ft

from impchat.errors import ImpChatError

log = logging.getLogger("impchat.mobile")

Handler = Callable[..., object]


def guarded(handler: Handler, failed: Callable[[Exception], None]) -> Callable[[object], Awaitable[None]]:
    """`handler`, whose errors go to `failed`. What it changes on the screen it updates itself."""
    takes_event = any(p.default is p.empty for p in inspect.signature(handler).parameters.values())

    async def call(event: object) -> None:
        # Without this Flet compares the whole page with what it was, after each event.
        ft.context.disable_auto_update()
        try:
            done = handler(event) if takes_event else handler()
            if inspect.isawaitable(done):
                await done
        except Exception as exc:  # noqa: BLE001 - the outer edge of the front end
            note("a handler", exc)
            failed(exc)

    return call


def note(what: str, error: Exception) -> None:
    """Log an error: what a person is told in a sentence in one line, a mistake of ours with its stack."""
    if isinstance(error, ImpChatError):
        log.info("%s was refused: %s", what, error.code)
    else:
        log.error("%s failed: %s", what, type(error).__name__, exc_info=error)
