"""The handle of a prefill or an answer that a server computes.

In: pieces of the answer. Out: a queue of events, and the `Stats` that the server reports.
This file does not know how requests are sent.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from impchat import settings
from impchat.engines.detokenizer import Detokenizer
from impchat.engines.remote.connection import Connection
from impchat.engines.remote.protocol import Chunk
from impchat.messages import End, Event, Finished, FinishReason, Prompt, Ready, Sampling, Stats, Text


class RemoteHandle:
    """A running prefill or answer of a server."""

    def __init__(self, prompt: Prompt, sampling: Sampling | None) -> None:
        self.prompt = prompt
        self.sampling = sampling  # None: a prefill
        self.over = threading.Event()  # set once the last event has been sent
        # Used only by the thread that sends the request
        self.responding = False  # the server has begun to answer: no more retries
        self.sent: frozenset[str] = frozenset()  # the fields of the latest request
        self.refused: set[str] = set()  # the fields left out of it
        self.tries = 0  # attempts to shorten the prompt or the answer
        self.said = self.thoughts = self.tools = False  # received so far: text, reasoning, tool calls
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._read = False
        # Guarded by _lock: read by stop(), which may run on another thread.
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._words = Detokenizer(sampling.stop if sampling else (), prompt.is_continued)
        self._stats = Stats()
        self._pieces = self._chars = 0
        self._asked_at = time.perf_counter()
        self._first_at = self._last_at = 0.0

    def events(self) -> Iterator[Event]:
        """Yield the events as they happen, up to the last one; blocks between them. Read it once, from one thread."""
        while not self._read:
            event = self._events.get()
            self._read = isinstance(event, End)
            yield event

    def stop(self) -> None:
        """End it at once: queue the last event, Finished("stopped"), and cut the connection, so that the server stops
        too."""
        with self._lock:
            if not self.over.is_set():
                self._finish("stopped")
                if self._connection:
                    self._connection.abort()

    # For the thread that sends the request

    @contextmanager
    def using(self, connection: Connection) -> Iterator[None]:
        """Context in which `stop` cuts `connection`."""
        with self._lock:
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def emit(self, event: Event) -> None:
        with self._lock:
            if not self.over.is_set():
                self._put(event)

    def _put(self, event: Event) -> None:
        self._events.put(event)
        if isinstance(event, End):
            self.over.set()

    def take(self, chunk: Chunk) -> None:
        """Process a piece of the answer."""
        with self._lock:
            if self.over.is_set():
                return
            self._stats = replace(self._stats, **chunk.stats)
            for event in (chunk.dropped, chunk.reading):
                if event:
                    self._put(event)
            self.thoughts, self.tools = self.thoughts or chunk.thoughts, self.tools or chunk.tools
            self.said = self.said or bool(chunk.text.strip())
            if not chunk.text:
                return
            self._last_at = time.perf_counter()
            self._first_at = self._first_at or self._last_at
            self._pieces += 1
            self._chars += len(chunk.text)
            if text := self._words.add(chunk.text.encode("utf-8", "replace")):
                self._put(Text(text))
            if self._words.stopped:
                self._finish("stop")
            elif self.sampling and self._chars > self.sampling.max_tokens * settings.TOKEN_CHARS:
                self._finish("length")  # the server ignores max_tokens

    def finish(self, reason: FinishReason) -> None:
        with self._lock:
            if not self.over.is_set():
                self._finish(reason)

    def ready(self, stats: dict[str, Any]) -> None:
        with self._lock:
            self._stats = replace(self._stats, **stats)
            if not self.over.is_set():
                self._put(Ready(self._receipt()))

    def _finish(self, reason: FinishReason) -> None:
        if rest := self._words.end():
            self._put(Text(rest))
        self._put(Finished(reason, self._receipt()))

    def _receipt(self) -> Stats:
        """The stats that the server reported. Missing counts and times are measured here if possible, or stay 0."""
        said = self._stats
        return replace(
            said,
            new_tokens=max(0, said.prompt_tokens - said.cached_tokens),
            generated_tokens=said.generated_tokens or self._pieces,
            decode_s=said.decode_s or self._last_at - self._first_at,
            first_token_s=self._first_at - self._asked_at if self._first_at else 0.0,
        )
