"""A prefill or an answer on its way through a server, and what its asker holds of it.

In: pieces of the answer. Out: a queue of events, and the receipt (`Stats`), as far as the server tells it.
This file does not know how a server is asked.
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
from impchat.messages import Event, Failed, Finished, FinishReason, Prompt, Ready, Sampling, Stats, Text


class RemoteHandle:
    """A prefill or an answer that a server is asked for."""

    def __init__(self, prompt: Prompt, sampling: Sampling | None) -> None:
        self.prompt = prompt
        self.sampling = sampling  # None: a prefill
        self.over = threading.Event()  # its last event is out
        # The asking thread's own
        self.begun = False  # the server has begun to answer: nothing is asked again
        self.sent: frozenset[str] = frozenset()  # the fields of the latest request
        self.refused: set[str] = set()  # fields left out of it
        self.tries = 0  # to make it short enough
        self.said = self.thoughts = self.tools = False  # what has come: words, reasoning, calls of tools
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._read = False
        # Under the lock: what a stop from another thread needs to know.
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._words = Detokenizer(sampling.stop if sampling else (), prompt.is_continued)
        self._stats = Stats()
        self._pieces = self._chars = 0
        self._asked_at = time.perf_counter()
        self._first_at = self._last_at = 0.0

    def events(self) -> Iterator[Event]:
        """The events as they happen, to the last one; blocks between them. To be read by one thread, once."""
        while not self._read:
            event = self._events.get()
            self._read = isinstance(event, Ready | Finished | Failed)
            yield event

    def stop(self) -> None:
        """End it at once: its last event, with what there is, comes before this returns, and the server sees us go."""
        with self._lock:
            if not self.over.is_set():
                self._finish("stopped")
                if self._connection:
                    self._connection.abort()

    # For the thread that asks

    @contextmanager
    def using(self, connection: Connection) -> Iterator[None]:
        """What a stop in this block cuts."""
        with self._lock:
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def tell(self, event: Event) -> None:
        with self._lock:
            if not self.over.is_set():
                self._put(event)

    def _put(self, event: Event) -> None:
        self._events.put(event)
        if isinstance(event, Ready | Finished | Failed):
            self.over.set()

    def take(self, chunk: Chunk) -> None:
        """A piece of the answer has come."""
        with self._lock:
            if self.over.is_set():
                return
            self._stats = replace(self._stats, **chunk.told)
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
                self._finish("length")  # this server never ends

    def finish(self, reason: FinishReason) -> None:
        with self._lock:
            if not self.over.is_set():
                self._finish(reason)

    def ready(self, told: dict[str, Any]) -> None:
        with self._lock:
            self._stats = replace(self._stats, **told)
            if not self.over.is_set():
                self._put(Ready(self._receipt()))

    def _finish(self, reason: FinishReason) -> None:
        if rest := self._words.end():
            self._put(Text(rest))
        self._put(Finished(reason, self._receipt()))

    def _receipt(self) -> Stats:
        """What the server says of its work; what it does not say is seen from here, or stays nothing."""
        said = self._stats
        return replace(
            said,
            new_tokens=max(0, said.prompt_tokens - said.cached_tokens),
            generated_tokens=said.generated_tokens or self._pieces,
            decode_s=said.decode_s or self._last_at - self._first_at,
            first_token_s=self._first_at - self._asked_at if self._first_at else 0.0,
        )
