"""The state of one request in the scheduler, and the handle that its caller gets.

In: a prompt and a sampling. Out: a queue of events, and the `Stats` so far.
This file does not know the scheduler.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from impchat.engines.detokenizer import Detokenizer
from impchat.engines.local import kv_cache
from impchat.engines.local.backend import Sampler
from impchat.messages import End, Event, Picture, Prompt, Sampling, Stats, Text

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from impchat.engines.local.kv_states import KvState


class Request:
    """The state of one prefill or answer. The scheduler's lock guards `ended`, `events` and the fields of the answer;
    only the scheduler's own threads change the other fields."""

    def __init__(self, prompt: Prompt, sampling: Sampling | None) -> None:
        self.prompt = prompt
        self.sampling = sampling  # None: a prefill
        # Reads words of a question that is being typed: only if nothing else runs, and until anything else is asked.
        self.typed = sampling is None and prompt.open_turn and bool(prompt.turns[-1].text)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.ended = False  # the last event has been sent
        self.started_at = time.perf_counter()
        # Set when it is rendered
        self.cells: list[kv_cache.Cell] = []
        self.pictures: dict[str, Picture] = {}
        self.saved: KvState | None = None  # loaded for it from disk
        self.is_looked_up = False  # whether a state on disk has its beginning
        self.loading = False  # its state is being loaded
        self.place = 0  # in the queue for a slot, as last reported; 0: never
        # Set when it has a slot
        self.slot: kv_cache.Slot | None = None
        self.sampler: Sampler | None = None
        self.embeddings: dict[str, NDArray[numpy.float32]] = {}
        self.cached = 0  # prompt cells found in the KV cache
        self.read = 0  # prompt cells decoded since
        self.vision_s = 0.0
        self.prefill_s = 0.0
        # The answer
        self.words = Detokenizer()
        self.tokens: list[int] = []
        self.ends: list[int] = []  # for each token, the length in bytes of the answer up to its end
        self.emitted = 0  # tokens whose text has been sent
        self.next: int | None = None  # the token to decode next
        self.first_at = 0.0  # time.perf_counter() at the first token; 0: none yet
        self.last_at = 0.0

    @property
    def reading(self) -> bool:
        """Whether it has a slot and its prompt is not completely in the KV cache yet."""
        return self.slot is not None and self.cached + self.read < len(self.cells)

    def add(self, token: int, piece: bytes) -> str:
        """Append `token`, whose bytes are `piece`, to the answer. Returns the text that it completes."""
        self.tokens.append(token)
        self.ends.append((self.ends[-1] if self.ends else 0) + len(piece))
        return self.words.add(piece)

    def emit(self, text: str) -> None:
        """Send `text`, unless it is empty, with the tokens added since the last piece."""
        if text:
            self.events.put(Text(text, tuple(self.tokens[self.emitted :])))
            self.emitted = len(self.tokens)

    def release(self) -> None:
        """Release everything but the events and the counts, because the caller may keep the handle for a long time."""
        if self.slot:
            self.slot.busy = False
        if self.sampler:
            self.sampler.free()
        self.prompt = Prompt("", ())
        self.slot = self.sampler = self.next = None
        self.cells, self.pictures, self.embeddings, self.saved = [], {}, {}, None

    def stats(self) -> Stats:
        return Stats(
            prompt_tokens=self.cached + self.read,
            cached_tokens=self.cached,
            new_tokens=self.read,
            generated_tokens=len(self.tokens),
            vision_s=self.vision_s,
            prefill_s=self.prefill_s,
            decode_s=self.last_at - self.first_at,
            first_token_s=self.first_at - self.started_at if self.first_at else 0.0,
        )

    def answer_tokens(self) -> tuple[int, ...]:
        """The token ids of the answer. If a stop string cut the text, only the ids before the cut; empty if the cut
        falls inside a token."""
        if not self.words.stopped:
            return tuple(self.tokens)
        size = self.words.size_bytes
        if size and size not in self.ends:
            return ()
        return tuple(t for t, end in zip(self.tokens, self.ends, strict=True) if end <= size)


class LocalHandle:
    """A running prefill or answer of an engine on this machine."""

    def __init__(self, request: Request, stop: Callable[[Request], None]) -> None:
        self._request = request
        self._stop = stop
        self._over = False

    @property
    def stats(self) -> Stats:
        """The stats so far."""
        return self._request.stats()

    def events(self) -> Iterator[Event]:
        """Yield the events as they happen, up to the last one; blocks between them. Read it once, from one thread."""
        while not self._over:
            event = self._request.events.get()
            self._over = isinstance(event, End)
            yield event

    def stop(self) -> None:
        """End it at once: its last event is queued before this returns. Does nothing if it has ended."""
        self._stop(self._request)
