"""A prompt on its way through the scheduler, and what its asker holds of it.

In: a prompt and a sampling. Out: a queue of events, and the receipt (`Stats`) of what was done for it so far.
This file does not know who does the work.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from impchat.engines.detokenizer import Detokenizer
from impchat.engines.local import kv_cache
from impchat.engines.local.backend import Sampler
from impchat.messages import Event, Failed, Finished, Picture, Prompt, Ready, Sampling, Stats, Text

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


class Request:
    """A prompt on its way through the scheduler. `ended`, `events` and what belongs to the answer change only under
    the scheduler's lock, all else on its thread."""

    def __init__(self, prompt: Prompt, sampling: Sampling | None) -> None:
        self.prompt = prompt
        self.sampling = sampling  # None: a prefill
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.ended = False  # its last event is out
        self.begun = time.perf_counter()
        # when it is rendered
        self.cells: list[kv_cache.Cell] = []
        self.pictures: dict[str, Picture] = {}
        # when it has a slot
        self.slot: kv_cache.Slot | None = None
        self.sampler: Sampler | None = None
        self.embeddings: dict[str, NDArray[numpy.float32]] = {}
        self.cached = 0  # cells that were there already
        self.read = 0  # cells read since
        self.vision_s = 0.0
        self.prefill_s = 0.0
        # when it is read: the answer
        self.words = Detokenizer()
        self.tokens: list[int] = []
        self.ends: list[int] = []  # behind which byte of the answer each token ends
        self.told = 0  # of the tokens, how many are behind the text that is out
        self.next: int | None = None  # the token to decode next
        self.first_at = 0.0  # when the first token came
        self.last_at = 0.0

    @property
    def reading(self) -> bool:
        """It has a slot, and its prompt is not yet wholly there."""
        return self.slot is not None and self.cached + self.read < len(self.cells)

    def add(self, token: int, piece: bytes) -> str:
        """The answer goes on with `token`; the text that its bytes `piece` complete."""
        self.tokens.append(token)
        self.ends.append((self.ends[-1] if self.ends else 0) + len(piece))
        return self.words.add(piece)

    def tell(self, text: str) -> None:
        """Let `text` out, if it is any, with the tokens that made it."""
        if text:
            self.events.put(Text(text, tuple(self.tokens[self.told :])))
            self.told = len(self.tokens)

    def forget(self) -> None:
        """Let go of everything but the events: who asked may keep the handle for long."""
        if self.slot:
            self.slot.busy = False
        if self.sampler:
            self.sampler.free()
        self.prompt = Prompt("", ())
        self.slot = self.sampler = self.next = None
        self.cells, self.pictures, self.embeddings = [], {}, {}

    def stats(self) -> Stats:
        return Stats(
            prompt_tokens=self.cached + self.read,
            cached_tokens=self.cached,
            new_tokens=self.read,
            generated_tokens=len(self.tokens),
            vision_s=self.vision_s,
            prefill_s=self.prefill_s,
            decode_s=self.last_at - self.first_at,
            first_token_s=self.first_at - self.begun if self.first_at else 0.0,
        )

    def answer_tokens(self) -> tuple[int, ...]:
        """The ids of the answer. Behind a stop string the text was cut: the ids before the cut, or none where it
        goes through the middle of one."""
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
        """The receipt so far."""
        return self._request.stats()

    def events(self) -> Iterator[Event]:
        """The events as they happen, to the last one; blocks between them. To be read by one thread, once."""
        while not self._over:
            event = self._request.events.get()
            self._over = isinstance(event, Ready | Finished | Failed)
            yield event

    def stop(self) -> None:
        """End it at once: its last event, with what there is, comes before this returns."""
        self._stop(self._request)
