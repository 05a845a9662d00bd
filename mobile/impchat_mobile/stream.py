"""Reads the core's events on a thread and delivers them in batches on the event loop.

In: a function that yields numbered events, such as `Answer.events` or `Attachment.events`. Out: calls with lists of
events, at most one every `settings.MOBILE_UPDATE_S` seconds, so that the screen is not updated for every token.
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
    """Pass all events to `take` in order; return after the last one. Cancelling this does not stop the answer."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(event: Event | None) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
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
