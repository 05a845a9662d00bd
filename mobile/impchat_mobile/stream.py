"""Calls a function on the event loop whenever an answer or a prefill has progressed.

In: an `Answer` or an `Attachment`, which threads of the core change. Out: calls of a function that shows the progress,
at most one every `settings.MOBILE_UPDATE_S` seconds, so that the screen is not updated for every token.
This file does not know Flet.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from impchat import settings
from impchat.answer import Answer
from impchat.deferred import Attachment

_WAIT_S = 1.0  # for the next event, before the thread checks whether it is still needed


async def follow(source: Answer | Attachment, update: Callable[[], None]) -> None:
    """Call `update` whenever `source` has progressed, and return after the call for its end. Cancelling this does not
    stop `source`."""
    loop, changed, cancelled = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def watch() -> None:
        seen = 0
        while not cancelled.is_set():
            before, seen = seen, source.latest(seen, _WAIT_S)
            ended = source.progress.end is not None
            if seen != before or ended:
                with contextlib.suppress(RuntimeError):  # the loop has been closed
                    loop.call_soon_threadsafe(changed.set)
            if ended:
                return

    threading.Thread(target=watch, name="follow", daemon=True).start()
    try:
        ended = False
        while not ended:
            await changed.wait()
            await asyncio.sleep(settings.MOBILE_UPDATE_S)
            changed.clear()
            ended = source.progress.end is not None
            update()
    finally:
        cancelled.set()
