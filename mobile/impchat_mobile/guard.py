"""What stands between Flet and every handler: an error becomes a sentence, and the page stays.

In: handlers, plain or coroutines, with or without the event as their argument. Out: handlers for Flet, for which an
error that gets through replaces the whole page.
This file does not know any screen.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import flet as ft

log = logging.getLogger("impchat.mobile")

Handler = Callable[..., Any]


def guarded(handler: Handler, failed: Callable[[Exception], None]) -> Callable[[Any], Awaitable[None]]:
    """`handler`, whose errors go to `failed`. What it changes on the screen it updates itself."""
    takes_event = any(p.default is p.empty for p in inspect.signature(handler).parameters.values())

    async def call(event: Any) -> None:
        # Without this Flet compares the whole page with what it was, after each event.
        ft.context.disable_auto_update()
        try:
            done = handler(event) if takes_event else handler()
            if inspect.isawaitable(done):
                await done
        except Exception as exc:
            log.error("a handler failed: %s", type(exc).__name__, exc_info=exc)
            failed(exc)

    return call
