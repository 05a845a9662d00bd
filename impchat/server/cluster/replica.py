"""A replica: the engine of a bundle in a process of Ray's.

In: prompts, from any machine of the cluster. Out: their events, as many at a time as there are, each time with the
receipt so far. `cluster` deploys and asks it. This file does not know which conversations come here, nor why.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator

from impchat.bundle import Bundle
from impchat.engines.local.engine import LocalEngine
from impchat.engines.local.request import LocalHandle
from impchat.messages import Event, Failed, Finished, Prompt, Ready, Sampling, Stats

News = tuple[tuple[Event, ...], Stats]
"""Events in their order, and the receipt of what was done until then."""


class Replica:
    """Ray Serve makes it, calls it, and makes a new one where it is gone."""

    def __init__(self, bundle: Bundle, slots: int, threads: int, alone: bool) -> None:
        """`alone`: this is a Ray of our own, on this machine; else the cluster's owner decides who reaches what."""
        if alone:
            _close_port()
        self._engine = LocalEngine(bundle, slots=slots, threads=threads)

    async def run(self, prompt: Prompt, sampling: Sampling | None) -> AsyncIterator[News]:
        """Answer `prompt`, or, where there is no `sampling`, only read it. Who stops listening stops it."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()
        handle = self._engine.start(prompt, sampling) if sampling else self._engine.prefill(prompt)
        threading.Thread(target=_pump, args=(handle, loop, events), name="replica-run", daemon=True).start()
        ended = False
        try:
            while not ended:
                news = [await events.get()]
                while not events.empty():
                    news.append(events.get_nowait())
                match news[-1]:
                    case Failed(code="engine.broken"):
                        os._exit(1)  # Ray makes a new replica, and all that was asked of this one goes on elsewhere
                    case Ready() | Finished() | Failed():
                        ended = True
                yield tuple(news), handle.stats
        finally:
            handle.stop()

    def pid(self) -> int:
        """Its process."""
        return os.getpid()


def _pump(handle: LocalHandle, loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Event]) -> None:
    for event in handle.events():
        loop.call_soon_threadsafe(events.put_nowait, event)


def _close_port() -> None:
    """Ray Serve opens a port in each replica, on every address and without a password, for calls over gRPC. Nothing
    here calls it, and no option keeps it shut."""
    from ray.serve._private import replica

    replica.add_port_to_grpc_server = lambda *_: 0  # type: ignore[attr-defined]
