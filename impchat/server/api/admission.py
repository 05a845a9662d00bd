"""Admission of requests: a limited number at a time, each with a thread that passes its events to an event loop.

In: handles of an engine. Out: their events in asyncio, and metrics for Prometheus.
This file does not know the content of requests, nor how answers are sent.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from impchat.answer import drain
from impchat.engines import Handle
from impchat.errors import RequestError
from impchat.messages import End, Event, Failed, Finished, Ready, Stats, Text

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class Metrics:
    """The metrics for Prometheus. They contain no text, names or addresses."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"impchat_{name}", about, labels, registry=self.registry)

        self.requests = counter("requests", "Requests for an answer or a prefill, by how they ended", "end")
        self.prompt = counter("prompt_tokens", "Tokens of prompts, those of pictures too")
        self.cached = counter("cached_tokens", "Of these, found in the KV cache")
        self.generated = counter("generated_tokens", "Tokens of answers")
        self.open = Gauge("impchat_requests_open", "Requests being answered or waiting", registry=self.registry)
        self.first = Histogram(
            "impchat_first_token_seconds", "From request to first text", registry=self.registry, buckets=_SECONDS
        )
        self.took = Histogram(
            "impchat_request_seconds", "From request to its end", registry=self.registry, buckets=_SECONDS
        )

    def count(self, stats: Stats) -> None:
        self.prompt.inc(stats.prompt_tokens)
        self.cached.inc(stats.cached_tokens)
        self.generated.inc(stats.generated_tokens)


class AdmissionQueue:
    """Admits at most `limit` requests at a time. May be used from several threads, each with its own event loop."""

    def __init__(self, limit: int) -> None:
        self.metrics = Metrics()
        self._limit = limit
        self._lock = threading.Lock()
        self._open = 0
        self._usual_s = 1.0  # moving average of the duration of a request

    def take(self, handle: Handle, gone: threading.Event) -> Admission:
        """Admit a request: read the events of `handle` for the running event loop. `gone`: set when the job is closed.

        Raises RequestError "request.busy" with the estimated seconds until a place is free."""
        with self._lock:
            if self._open >= self._limit:
                self.metrics.requests.labels("refused").inc()
                raise RequestError("request.busy", seconds=max(1, math.ceil(self._usual_s)))
            self._open += 1
        self.metrics.open.inc()
        return Admission(handle, gone, self.metrics, self._leave)

    def _leave(self, seconds: float) -> None:
        with self._lock:
            self._open -= 1
            self._usual_s += 0.2 * (seconds - self._usual_s)
        self.metrics.open.dec()
        self.metrics.took.observe(seconds)


class Admission:
    """An admitted request. The caller must call `close`, which frees its place."""

    def __init__(self, handle: Handle, gone: threading.Event, metrics: Metrics, leave: Callable[[float], None]) -> None:
        self._handle = handle
        self._gone = gone
        self._metrics = metrics
        self._leave = leave
        self._begun = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._early: list[Event] = []
        self._spoke = self._closed = False
        self._end = "gone"
        # A daemon, so that the process can exit without waiting for the model.
        threading.Thread(target=self._take, name="api-request", daemon=True).start()

    def _take(self) -> None:
        end: End = Failed("answer.no_end", {})  # sent only if a bug ends the thread early
        try:
            end = drain(self._handle, self._put)
        finally:
            self._put(end)

    def _put(self, event: Event) -> None:
        with suppress(RuntimeError):  # the event loop is closed, so there is no reader
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def first(self, passed: tuple[type, ...], timeout_s: float) -> Event | None:
        """The first event whose type is not in `passed`, or None after `timeout_s` seconds. `events` will yield it and
        the events before it again."""

        async def find() -> Event:
            while not self._early or isinstance(self._early[-1], passed):
                self._early.append(await self._next())
            return self._early[-1]

        with suppress(TimeoutError):
            return await asyncio.wait_for(find(), timeout_s)
        return None

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events as they happen, up to the last one. Pieces of text that are queued together are joined."""
        while True:
            event = self._early.pop(0) if self._early else await self._next()
            rest = None
            while isinstance(event, Text) and rest is None and not (self._early or self._events.empty()):
                following = await self._next()
                if isinstance(following, Text):
                    event = Text(event.text + following.text, event.tokens + following.tokens)
                else:
                    rest = following
            for each in (event, rest):
                if each is not None:
                    yield each
                    if isinstance(each, End):
                        return

    async def _next(self) -> Event:
        event = await self._events.get()
        if isinstance(event, Text) and not self._spoke:
            self._spoke = True
            self._metrics.first.observe(time.monotonic() - self._begun)
        if isinstance(event, Ready | Finished):
            self._metrics.count(event.stats)
            self._end = "done"
        if isinstance(event, Failed):
            self._end = "failed"
        return event

    def close(self) -> None:
        """Stop the handle and free the place. May be called more than once."""
        if not self._closed:
            self._closed = True
            self._gone.set()
            self._handle.stop()
            self._metrics.requests.labels(self._end).inc()
            self._leave(time.monotonic() - self._begun)
