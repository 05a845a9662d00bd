"""Models on their way to this device: begun, paused, gone on with, given up.

In: where a model comes from. Out: how far each copy is, for whoever watches. A copy goes on while screens come and go;
one that the app's end cut off is found again at the next start.
This file does not know Flet.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from impchat.app import App
from impchat.errors import ImpChatError
from impchat.models import copying
from impchat.models.copying import Source


@dataclass(slots=True)
class Copy:
    """One of them."""

    id: str
    name: str
    source: Source
    done: int = 0
    total: int = 0
    running: bool = False
    error: ImpChatError | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 0.0


class Copies:
    """All methods are called on the event loop."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.known: dict[str, Copy] = {}  # id -> copy
        self.watchers: set[Callable[[], None]] = set()  # called when anything has changed
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Find what was begun before."""
        for half in await asyncio.to_thread(copying.unfinished, self._app.data):
            if half.id not in self.known:
                self.known[half.id] = Copy(half.id, half.name, half.source, half.done, half.total)

    def begin(self, copy: Copy, client: Callable[[], httpx.Client]) -> None:
        """Fetch it, from the beginning or from where it stood; one that is on its way goes on."""
        if copy.id in self.known and self.known[copy.id].running:
            return
        copy.running, copy.error, copy.stop = True, None, threading.Event()
        self.known[copy.id] = copy
        task = asyncio.get_running_loop().create_task(self._run(copy, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._tell()

    async def _run(self, copy: Copy, client: Callable[[], httpx.Client]) -> None:
        def watch(done: int, total: int) -> None:
            copy.done, copy.total = done, total

        def work() -> bool:
            with client() as http:
                return copying.copy(self._app.data, copy.source, http, watch, copy.stop) is not None

        ticking = asyncio.get_running_loop().create_task(self._tick())
        try:
            if await asyncio.to_thread(work):
                self.known.pop(copy.id, None)
        except ImpChatError as error:
            copy.error = error
        finally:
            copy.running = False
            ticking.cancel()
            self._tell()

    async def _tick(self) -> None:
        while True:  # a thread's progress, looked at twice a second
            await asyncio.sleep(0.5)
            self._tell()

    def pause(self, copy: Copy) -> None:
        """Stop it; what has come stays."""
        copy.stop.set()

    async def forget(self, copy: Copy) -> None:
        """Give it up. Raises ModelError "model.busy" while it still runs."""
        await asyncio.to_thread(copying.forget, self._app.data, copy.id)
        self.known.pop(copy.id, None)
        self._tell()

    def _tell(self) -> None:
        for watcher in list(self.watchers):
            watcher()
