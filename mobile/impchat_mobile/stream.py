"""The core's events, read by a thread -> batches on the event loop.

In: what begins to read numbered events, as `Answer.events` and `Attachment.events` do. Out: calls with lists of events,
at most one every `settings.MOBILE_UPDATE_S`, so that a fast answer costs the screen no more than a slow one.
This file does not know Flet.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable

from impchat import settings
from impchat.messages import Event


async def follow(events: Callable[[], Iterable[tuple[int, Event]]], take: Callable[[list[Event]], None]) -> None:
    """Give `take` every event in order; returns behind the last one. Cancelling it leaves what runs alone."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(event: Event | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody listens any more
            loop.call_soon_threadsafe(queue.put_nowait, event)

    def read() -> None:
        try:
            for _, event in events():
                put(event)
        finally:
            put(None)

    threading.Thread(target=read, name="follow", daemon=True).start()
    ended = False
    while not ended:
        batch = [await queue.get()]
        await asyncio.sleep(settings.MOBILE_UPDATE_S)
        while not queue.empty():
            batch.append(queue.get_nowait())
        ended = batch[-1] is None
        if found := [event for event in batch if event is not None]:
            take(found)
