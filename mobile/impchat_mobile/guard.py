"""Error handling for all handlers: an exception becomes a sentence, and the page stays.

In: handlers, plain functions or coroutines, with or without the event as argument. Out: handlers for Flet that do not
raise, because Flet replaces the whole page by an exception.
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
    """`handler` for Flet; its exceptions go to `failed`. The handler updates the controls that it changes itself."""
    takes_event = any(p.default is p.empty for p in inspect.signature(handler).parameters.values())

    async def call(event: object) -> None:
        # Otherwise Flet compares the whole page with its previous state after each event.
        ft.context.disable_auto_update()
        try:
            await (invoke(handler, event) if takes_event else invoke(handler))
        except Exception as exc:  # noqa: BLE001 - the outer edge of the front end
            log_error("a handler", exc)
            failed(exc)

    return call


async def invoke(handler: Handler, *values: object) -> object:
    """Call `handler`, a plain function or a coroutine, and return its result."""
    result = handler(*values)
    return await result if inspect.isawaitable(result) else result


def log_error(what: str, error: Exception) -> None:
    """Log an error: an ImpChatError in one line, anything else, which is a bug, with its traceback."""
    if isinstance(error, ImpChatError):
        log.info("%s was refused: %s", what, error.code)
    else:
        log.error("%s failed: %s", what, type(error).__name__, exc_info=error)
