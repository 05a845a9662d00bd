"""A replica: the engine of a bundle in a process of Ray Serve.

In: prompts, from any machine of the cluster. Out: batches of their events, each with the stats so far.
`cluster.engine` deploys and calls it. This file does not know how conversations are routed.
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
"""Events in order, and the stats after them."""


class Replica:
    """The Ray Serve deployment. Ray Serve creates, calls and replaces it."""

    def __init__(self, bundle: Bundle, slots: int, threads: int, alone: bool) -> None:
        """`alone`: this is a private Ray, so the replica's gRPC port is kept closed; on another cluster, its owner
        decides about access. `slots`, `threads`: as in `LocalEngine`."""
        if alone:
            _close_port()
        self._engine = LocalEngine(bundle, slots=slots, threads=threads)

    async def run(self, prompt: Prompt, sampling: Sampling | None) -> AsyncIterator[News]:
        """Answer `prompt`, or only read it if `sampling` is None. Closing the generator stops it."""
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
                        os._exit(1)  # Ray starts a new replica; the requests continue on others
                    case Ready() | Finished() | Failed():
                        ended = True
                yield tuple(news), handle.stats
        finally:
            handle.stop()

    def pid(self) -> int:
        """The id of the replica's process."""
        return os.getpid()


def _pump(handle: LocalHandle, loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Event]) -> None:
    for event in handle.events():
        loop.call_soon_threadsafe(events.put_nowait, event)


def _close_port() -> None:
    """Keep Ray Serve from opening a gRPC port in the replica, on all addresses and without authentication. ImpChat does
    not use it, and Ray Serve has no option to disable it."""
    from ray.serve._private import replica

    replica.add_port_to_grpc_server = lambda *_: 0  # type: ignore[attr-defined]
