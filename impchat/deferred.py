"""Work for an engine that starts later, and the prefill of a draft.

In: the future of an engine, a function that builds the prompt, and the work to wait for. Out: `DeferredHandle`, used
like an engine's own handle; `Attachment`, a picture of a draft that is read while the user types.
This file does not know conversations, the history, or which engine runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

from impchat.answer import EventLog, drain
from impchat.engines import Engine, Handle
from impchat.messages import End, Event, Failed, Finished, Image, Progress, Prompt, Stats


class DeferredHandle:
    """A Handle that starts later: once earlier work in the conversation has ended and the engine is loaded. `stop` ends
    it at once, even while the model is loading."""

    def __init__(
        self,
        opened: Callable[[], Future[Engine]],
        prompt: Callable[[], Prompt],
        start: Callable[[Engine, Prompt], Handle],
        *,
        wait_for: Sequence[Callable[[], object]] = (),
        joined: Attachment | None = None,
    ) -> None:
        """`wait_for`: calls that return once the earlier work has ended. `joined`: a prefill that this work needs; its
        events become events of this handle."""
        self._opened = opened
        self._prompt = prompt
        self._start = start
        self._wait_for = wait_for
        self._joined = joined
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._go = threading.Event()  # set once the engine is loaded, or after stop()
        self._handle: Handle | None = None

    def events(self) -> Iterator[Event]:
        waited_s = 0.0
        if self._joined:
            began = time.monotonic()
            for _, event in self._joined.events():
                if not isinstance(event, End):  # the prefill's end is not this handle's
                    yield event
            self._joined.settled.wait()
            waited_s = time.monotonic() - began
        for wait in self._wait_for:
            wait()
        if (handle := self._begin()) is None:
            yield Finished("stopped", Stats())
            return
        for event in handle.events():
            if isinstance(event, Finished) and event.stats.generated_tokens:  # the user waited for the prefill too
                stats = replace(event.stats, first_token_s=event.stats.first_token_s + waited_s)
                event = replace(event, stats=stats)
            yield event

    def _begin(self) -> Handle | None:
        if self._stopped.is_set():  # do not load a model for nothing
            return None
        opened = self._opened()
        opened.add_done_callback(lambda _: self._go.set())
        self._go.wait()
        if self._stopped.is_set():
            return None
        engine, prompt = opened.result(), self._prompt()
        with self._lock:
            if not self._stopped.is_set():
                self._handle = self._start(engine, prompt)
            return self._handle

    def stop(self) -> None:
        with self._lock:
            self._stopped.set()
            self._go.set()
            handle = self._handle
        if handle:
            handle.stop()
        elif self._joined:
            self._joined.cancel()


class Attachment:
    """A picture of the draft: stored, and being read by the engine. It can be sent at any time."""

    def __init__(self, core: object, image: Image, pictures: tuple[str, ...], leaf: str | None, handle: Handle) -> None:
        self.core = core  # identifies the engine that reads it
        self.image = image
        self.pictures = pictures  # sha256 of every picture of the draft, in order; includes `image`
        self.leaf = leaf  # the message that the draft follows
        self.settled = threading.Event()  # set once the engine has finished this prefill
        self._handle = handle
        self._log = EventLog()

    def events(self, after: int = 0, timeout_s: float | None = None) -> Iterator[tuple[int, Event]]:
        """Yield numbered events (the first is 1) as they arrive, starting after number `after`. The last one is Ready,
        Failed (the picture can still be sent) or Finished("stopped") if a newer prefill replaced this one. If no event
        arrives within `timeout_s` seconds, the iteration ends early."""
        return self._log.read(after, timeout_s)

    @property
    def progress(self) -> Progress:
        """What the events so far add up to."""
        return self._log.progress

    def latest(self, after: int, timeout_s: float) -> int:
        """Wait up to `timeout_s` seconds for an event after number `after`, or the end; return the last number."""
        return self._log.latest(after, timeout_s)

    def cancel(self) -> None:
        """Stop reading. What the engine has read stays in its cache, and the picture stays attached."""
        self._handle.stop()
        self._log.add(Finished("stopped", Stats()))

    def work(self, done: Callable[[Attachment], None]) -> None:
        """Run the prefill to its end, then call `done`. Runs on a thread of its own."""
        end: End = Failed("answer.no_end", {})
        try:
            end = drain(self._handle, self._log.add)
        finally:
            done(self)
            self.settled.set()
            self._log.add(end)
