"""Copies of models to this device: started, paused, resumed and discarded.

In: the source of a model. Out: the progress of each copy, for its watchers. A copy continues when screens open and
close; a copy that was interrupted by the end of the app is listed again at the next start.
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
    """The copy of one model. `done` and `total` are bytes."""

    id: str
    name: str
    source: Source
    done: int = 0
    total: int = 0
    running: bool = False
    error: ImpChatError | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 0.0


class Copies:
    """The copies that are running or unfinished. All methods are called on the event loop."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.known: dict[str, Copy] = {}  # id -> copy
        self.watchers: set[Callable[[], None]] = set()  # called after every change
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Find the copies that an earlier run of the app left unfinished."""
        for found in await asyncio.to_thread(copying.unfinished, self._app.data):
            if found.id not in self.known:
                self.known[found.id] = Copy(found.id, found.name, found.source, found.done, found.total)

    def start(self, copy: Copy, client: Callable[[], httpx.Client]) -> None:
        """Start the copy, or resume it where it stopped. Does nothing if it is running."""
        if copy.id in self.known and self.known[copy.id].running:
            return
        copy.running, copy.error, copy.stop = True, None, threading.Event()
        self.known[copy.id] = copy
        task = asyncio.get_running_loop().create_task(self._run(copy, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._notify()

    async def _run(self, copy: Copy, client: Callable[[], httpx.Client]) -> None:
        def report(done: int, total: int) -> None:
            copy.done, copy.total = done, total

        def work() -> bool:
            with client() as http:
                return copying.copy(self._app.data, copy.source, http, report, copy.stop) is not None

        polling = asyncio.get_running_loop().create_task(self._poll())
        try:
            if await asyncio.to_thread(work):
                self.known.pop(copy.id, None)
        except ImpChatError as error:
            copy.error = error
        finally:
            copy.running = False
            polling.cancel()
            self._notify()

    async def _poll(self) -> None:
        while True:  # poll the thread's progress twice a second
            await asyncio.sleep(0.5)
            self._notify()

    def pause(self, copy: Copy) -> None:
        """Stop the copy; the bytes copied so far are kept."""
        copy.stop.set()

    async def discard(self, copy: Copy) -> None:
        """Discard the copy. Raises ModelError "model.busy" while it is running."""
        await asyncio.to_thread(copying.forget, self._app.data, copy.id)
        self.known.pop(copy.id, None)
        self._notify()

    def _notify(self) -> None:
        for watcher in list(self.watchers):
            watcher()
