"""Continuous batching on the one thread that owns the model.

In: requests, from any thread. Out: their events. Each step decodes the latest token of every running answer and a chunk
of the prompts that are being read. Answers therefore continue while a long prompt is read, and new requests join at any
step. Pictures are encoded on one separate thread; prompts are tokenised, and KV states are loaded and saved, on others.
An exception in the work for one request fails only that request.
This file does not know conversations beyond their key, nor who reads the events.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import takewhile
from typing import TYPE_CHECKING

from impchat import machine, prompts, settings
from impchat.bundle import Bundle
from impchat.engines import check_sampling
from impchat.engines.detokenizer import Detokenizer
from impchat.engines.local import kv_cache, spelling
from impchat.engines.local.backend import Context, Model, Outcome, Row, Sampler, Vision
from impchat.engines.local.kv_states import KvState, KvStates
from impchat.engines.local.request import LocalHandle, Request
from impchat.engines.local.vision import EncodeResult, EncoderThread
from impchat.errors import EngineError, ImpChatError
from impchat.messages import (
    Encoding,
    End,
    Event,
    Failed,
    Finished,
    FinishReason,
    Picture,
    Queued,
    Reading,
    Ready,
    Sampling,
)

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """One request's share of a batch: the next cells of its slot, either all tokens or all picture embeddings."""

    request: Request
    slot: kv_cache.Slot
    cells: list[kv_cache.Cell]
    logits: bool  # a token is sampled after the last cell


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The result of loading a KV state for a request."""

    request: Request
    state: KvState | None


class Scheduler:
    """Owns the thread, the model and the context. `submit`, `stop` and `close` may be called from any thread."""

    def __init__(
        self,
        bundle: Bundle,
        model: Model,
        context: Context,
        vision: Vision,
        slots: int,
        context_tokens: int,
        states: KvStates | None = None,
    ) -> None:
        """`states`: KV states on disk; None: nothing is saved."""
        self._bundle = bundle
        self._model = model
        self._context = context
        self._vision = vision
        self._context_tokens = context_tokens
        self._slots = kv_cache.Slots(context, slots, self._save)
        self._commands: queue.SimpleQueue[Request | EncodeResult | _Loaded | None] = (
            queue.SimpleQueue()
        )  # None: wakes the thread
        self._eyes = EncoderThread(vision, self._is_wanted, self._commands.put)
        self._states = states
        self._saving: list[threading.Thread] = []  # threads that write states
        # Used only by the scheduler's thread.
        self._waiting: list[Request] = []  # for a slot
        self._active: list[Request] = []  # have a slot
        self._prompt_token_s = 0.0  # seconds for a prompt token in the latest steps; 0: none was measured yet
        self._looking: dict[str, Request] = {}  # sha256 of a picture being encoded -> the first request for it
        # Guarded by _lock: stop() and close() read these on other threads.
        self._lock = threading.Lock()
        self._open: set[Request] = set()  # their last event has not been sent
        self._in_flight: set[Request] = set()  # in the batch that is being decoded
        self._preparing: set[threading.Thread] = set()
        self._closing = False
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="impchat-scheduler", daemon=True)
        self._thread.start()

    # For other threads

    def submit(self, request: Request) -> LocalHandle:
        work = threading.Thread(target=self._prepare, args=(request,), name="impchat-prompt", daemon=True)
        with self._lock:
            self._open.add(request)
            if self._closing:
                self._end(request, _failed(EngineError("engine.closed")))
            else:
                self._preparing.add(work)
                work.start()
                if not request.typed and self._in_flight and all(other.typed for other in self._in_flight):
                    self._context.abort()
        return LocalHandle(request, self.stop)

    @property
    def broken(self) -> bool:
        """Whether an exception has ended the thread. Every later request fails."""
        return self._broken

    def stop(self, request: Request) -> None:
        with self._lock:
            if request.ended:
                return
            self._finish(request, "stopped")
            if request in self._in_flight:
                self._context.abort()
        self._commands.put(None)

    def close(self) -> None:
        with self._lock:
            self._closing = True
            for request in [*self._open]:
                self._finish(request, "stopped")
            self._context.abort()
        self._commands.put(None)
        self._thread.join()

    def abandon(self) -> None:
        """Close without waiting. Takes no lock, because the garbage collector may call it at any point."""
        self._closing = True
        self._commands.put(None)

    # Events; the lock is held

    def _end(self, request: Request, event: End) -> None:
        request.ended = True
        request.events.put(event)
        self._open.remove(request)

    def _finish(self, request: Request, reason: FinishReason) -> None:
        request.emit(request.words.end())
        self._end(request, Finished(reason, request.stats(), request.answer_tokens()))

    # Events; the lock is not held

    def _tell(self, request: Request, event: Event) -> None:
        with self._lock:
            if request.ended:
                return
            if isinstance(event, End):
                self._end(request, event)
            else:
                request.events.put(event)

    # The thread

    def _run(self) -> None:
        progress = False
        try:
            while not self._closing:
                self._collect(wait=not progress)
                self._release()
                progress = self._admit()
                progress = self._step() or progress
        finally:
            with self._lock:
                self._broken, self._closing = not self._closing, True
                for request in [*self._open]:
                    if self._broken:  # an exception ended the loop; without a last event, readers would block forever
                        self._end(request, _failed(EngineError("engine.broken")))
                    else:
                        self._finish(request, "stopped")
                preparing = [*self._preparing]
            for work in preparing:  # these threads use the model, which is freed below
                work.join()
            self._release()
            for saving in self._saving:
                saving.join()
            try:
                _call([] if self._broken else self._saves(self._slots.unsaved))
            except Exception:  # noqa: BLE001 - what follows must be freed
                _log.exception("KV states were not saved")
            self._eyes.close()
            self._vision.free()
            self._context.free()
            self._model.free()

    def _collect(self, wait: bool) -> None:
        """Process all queued commands; with `wait`, block until there is at least one. The states of conversations are
        saved when nothing has been to do for a while."""
        while True:
            unsaved = wait and self._states and not self._active and self._slots.unsaved
            try:
                command = self._commands.get(wait, settings.KV_STATE_IDLE_S if unsaved else None)
            except queue.Empty:
                if unsaved:
                    self._save(self._slots.unsaved)
                return
            wait = False
            if isinstance(command, EncodeResult):
                self._seen(command)
            elif isinstance(command, _Loaded):
                command.request.loading = False
                if not command.request.ended:  # its caller may keep its handle for a long time
                    command.request.saved = command.state
            elif command is not None:
                self._waiting.append(command)

    def _prepare(self, request: Request) -> None:
        """Render a new request, then queue it for a slot. Runs on its own thread, because tokenising many megabytes
        of text takes seconds."""
        try:
            with self._faults_of(request):
                if not request.ended:
                    self._render(request)
        finally:
            with self._lock:
                self._preparing.discard(threading.current_thread())
            self._commands.put(request)  # even if it has ended: _release() frees it

    def _render(self, request: Request) -> None:
        bundle, tokens = self._bundle, self._bundle.image.tokens
        bos = self._model.bos if bundle.text.add_bos else None
        tokenize = prompts.in_nfc(self._model.tokenize) if bundle.text.nfc else self._model.tokenize
        writing = (bundle.writing, cache(tokenize), bundle.text.eos[0], bos)
        if request.sampling is not None:
            check_sampling(request.sampling)
        asked = spelling.plainly_spelt(request.prompt) if bundle.text.plain else request.prompt
        prompt, dropped = prompts.fit(asked, *writing, picture_tokens=tokens, context_tokens=self._context_tokens)
        pieces = [*prompts.render(prompt, *writing), prompts.Tokens(prompt.prefix)]
        request.cells = kv_cache.cells(pieces, tokens)
        request.pictures = {piece.sha256: piece for piece in pieces if isinstance(piece, Picture)}
        if dropped:
            self._tell(request, dropped)

    @contextmanager
    def _faults_of(self, request: Request) -> Iterator[None]:
        """Context for work on one request: an exception inside ends the request with a Failed event."""
        try:
            yield
        except ImpChatError as exc:
            self._tell(request, _failed(exc))
        except Exception:  # noqa: BLE001 - a bug here or in a library must not end the other requests
            _log.exception("a request ended by a fault")
            self._tell(request, _failed(EngineError("engine.fault")))

    def _is_wanted(self, sha256: str) -> bool:
        """Whether any open request contains this picture. Called on the thread that encodes pictures."""
        with self._lock:
            return any(sha256 in request.pictures for request in self._open)

    def _seen(self, seen: EncodeResult) -> None:
        """Pass a picture's embeddings, or the error, to every active request that contains the picture."""
        self._looking.pop(seen.sha256).vision_s += seen.seconds
        for request in self._active:
            if request.ended or seen.sha256 not in request.pictures:
                continue
            if seen.embeddings is not None:
                request.embeddings[seen.sha256] = seen.embeddings
            elif seen.error is not None:
                self._tell(request, _failed(seen.error))
            elif seen.sha256 not in request.embeddings:  # the request arrived just after the picture was skipped
                self._look(request, seen.sha256)

    def _look(self, request: Request, sha256: str) -> None:
        """Queue a picture of `request` for encoding, unless it is queued already."""
        if sha256 not in self._looking:
            self._looking[sha256] = request
            self._eyes.look(request.pictures[sha256])

    def _release(self) -> None:
        """Free the slots, samplers and memory of requests that have ended."""
        for request in [*self._active, *self._waiting]:
            if request.ended:
                request.release()
        self._active = [r for r in self._active if not r.ended]
        self._waiting = [r for r in self._waiting if not r.ended]

    def _admit(self) -> bool:
        """Give slots to waiting requests, answers before prefills, and typed words last. Returns whether any request
        started or ended."""
        changed = False
        order = sorted(self._waiting, key=lambda r: (r.typed, r.sampling is None))
        for request in order:
            if request not in self._waiting:  # replaced by a request before it
                continue
            if request.typed and not self._slots.holds_pictures(request.cells):  # only words may be left unread
                request.typed = False
            if request.typed and not machine.is_spare():
                self._stop_typed(request)
                continue
            self._replace_typed(request)
            if any(_is_ahead(other, request) for other in self._active):
                continue
            if request.sampling is None and self._slots.holds(request.cells):
                request.cached = len(request.cells)
                self._tell(request, Ready(request.stats()))
                changed = True
                continue
            if request.loading or self._load_state(request):
                continue
            # The last token of an answer's prompt is always read, for its logits.
            slot = self._slots.take(
                request.prompt.key,
                request.cells[: -1 if request.sampling else None],
                evict=not request.typed,
                saved=request.saved,
            )
            if slot is None and request.typed:
                self._stop_typed(request)
                continue
            if slot is None:
                for other in self._active:  # their slots are free in the next step
                    if other.typed:
                        self._stop_typed(other)
                        changed = True
                break
            request.slot, request.saved = slot, None
            self._waiting.remove(request)
            self._active.append(request)
            with self._faults_of(request):
                self._begin(request, slot)
            changed = True
        if self._slots.full:
            self._tell_places([r for r in order if r.slot is None and not r.ended])
        return changed

    def _load_state(self, request: Request) -> bool:
        """Begin to load a KV state for `request`, if one on disk has more of its beginning than the slots have. Returns
        whether it did."""
        states = self._states
        if not states or request.is_looked_up:
            return False
        request.is_looked_up = True
        held, least = self._slots.longest(request.cells), settings.KV_STATE_LEAST_TOKENS
        if len(request.cells) - held < least:  # the usual follow-up question: no need to look at the disk
            return False
        name, tokens = states.longest(request.cells, self._context_tokens)
        if tokens - held < least:
            return False

        def load() -> None:
            state = None
            try:
                state = states.load(name)
            except Exception:  # noqa: BLE001 - the prompt is then read
                _log.exception("a saved KV state was not loaded")
            finally:
                self._commands.put(_Loaded(request, state))

        request.loading = True
        threading.Thread(target=load, name="impchat-states", daemon=True).start()
        return True

    def _save(self, slots: list[kv_cache.Slot]) -> None:
        """Export the states of `slots`, and write them on another thread."""
        self._saving = [saving for saving in self._saving if saving.is_alive()]
        if saves := self._saves(slots):
            self._saving.append(threading.Thread(target=_call, args=(saves,), name="impchat-states"))
            self._saving[-1].start()

    def _saves(self, slots: list[kv_cache.Slot]) -> list[Callable[[], None]]:
        """Export the states of `slots`. Returns functions that write them."""
        saves: list[Callable[[], None]] = []
        if states := self._states:
            for slot in slots:
                slot.unsaved = False
                if states.is_wanted(slot.key) and (state := self._context.save(slot.sequence)) is not None:
                    saves.append(partial(states.save, slot.key, list(slot.cells), state))
        return saves

    def _tell_places(self, queued: list[Request]) -> None:
        """Report to each of `queued`, the requests without a slot in order, its place if that has changed."""
        for place, request in enumerate(queued, 1):
            if request.place != place:
                request.place = place
                self._tell(request, Queued(place))

    def _replace_typed(self, request: Request) -> None:
        """Stop reading typed words in the conversation of `request`, and those it would wait for. What has been read
        stays in the KV cache."""
        earlier = self._waiting[: self._waiting.index(request)] if request.typed else self._waiting
        for other in [*self._active, *earlier]:
            same = other.prompt.key == request.prompt.key != ""
            if other.typed and other is not request and (same or _is_ahead(other, request)):
                self._stop_typed(other)

    def _stop_typed(self, request: Request) -> None:
        """Read no more of these words, and free their slot."""
        self._tell(request, Ready(request.stats()))  # its reader must not take this for a failure
        request.release()
        self._active = [r for r in self._active if r is not request]
        self._waiting = [r for r in self._waiting if r is not request]

    def _begin(self, request: Request, slot: kv_cache.Slot) -> None:
        """Prepare a request that has just got its slot: its sampler, and the pictures that the KV cache lacks."""
        request.cached = len(slot.cells)
        if request.sampling:
            request.words = Detokenizer((*self._bundle.text.stop, *request.sampling.stop), request.prompt.is_continued)
            seed = request.sampling.seed
            request.sampler = self._model.sampler(request.sampling, random.getrandbits(31) if seed is None else seed)
            if request.prompt.prefix and not self._resume(request, request.sampling, request.sampler):
                return
        new = request.cells[request.cached :]
        for sha256 in dict.fromkeys(cell[0] for cell in new if not isinstance(cell, int)):
            known = self._vision.cached(sha256)
            if known is not None:
                request.embeddings[sha256] = known
                continue
            self._tell(request, Encoding(sha256))
            self._look(request, sha256)
        self._tell(request, Reading(0, len(new)))
        if not new:  # a prefill, all of which was in the state that was loaded for it
            self._tell(request, Ready(request.stats()))

    def _resume(self, request: Request, sampling: Sampling, sampler: Sampler) -> bool:
        """Restore the part of the answer in `prompt.prefix`. Returns whether there is room for more tokens; if not,
        the request has ended with finish reason "length"."""
        for token in request.prompt.prefix:
            sampler.accept(token)
            request.add(token, self._model.piece(token))
        request.emitted = len(request.tokens)
        full = len(request.tokens) >= sampling.max_tokens or len(request.cells) > self._context_tokens
        if full:
            with self._lock:
                if not request.ended:
                    self._finish(request, "length")
        return not full

    def _step(self) -> bool:
        """Decode one token of every answer and a chunk of the prompts. Returns whether there was anything to decode.

        The answers, tokens of prompts and pictures are decoded apart: a batch holds either tokens or embeddings, and
        llama.cpp computes rows of several sequences together only if each has equally many."""
        answers = [
            _Part(request, request.slot, [request.next], logits=True)
            for request in self._active
            if request.slot and request.next is not None
        ]
        readers = [r for r in self._active if r.reading]
        if not all(r.typed for r in self._active):  # words that are being typed delay nobody
            readers = [r for r in readers if not r.typed]
        budget = min(self._chunk(shared=bool(answers)), self._context.batch_tokens)
        texts, pictures = _share_out(readers, budget)
        if readers:  # round robin: the first one this time is last next time
            self._active.remove(readers[0])
            self._active.append(readers[0])
        self._decode(answers)
        for parts in (texts, pictures):
            self._measure(parts, self._decode(parts))
        return bool(answers or texts or pictures)

    def _chunk(self, shared: bool) -> int:
        """How many prompt tokens to read in a step. `shared`: answers run, and get one token in it."""
        most_s = settings.PREFILL_SHARED_STEP_S if shared else settings.PREFILL_STEP_S
        if not self._prompt_token_s:
            return settings.PREFILL_FIRST_TOKENS
        return max(settings.PREFILL_LEAST_TOKENS, int(most_s / self._prompt_token_s))

    def _measure(self, parts: list[_Part], seconds: float) -> None:
        """Update the speed of reading after a decode of `parts`, which took `seconds`; 0: it was not completed."""
        tokens = sum(len(part.cells) for part in parts)
        if seconds and tokens >= settings.PREFILL_LEAST_TOKENS:  # the speed of fewer says nothing about large chunks
            latest = seconds / tokens
            self._prompt_token_s = (self._prompt_token_s + latest) / 2 if self._prompt_token_s else latest

    def _decode(self, parts: list[_Part]) -> float:
        """Decode `parts` in one batch, and return the seconds that it took. If a stop aborts it (0 s), the other
        requests are decoded again in the next step. If it fails (0 s), each part is decoded alone, and a request that
        fails alone ends with "engine.decode_failed"."""
        with self._lock:
            # llama.cpp computes rows together only if their sequences follow each other in order.
            parts = sorted((p for p in parts if not p.request.ended), key=lambda part: part.slot.sequence)
            if not parts:
                return 0.0
            self._in_flight = {part.request for part in parts}
            self._context.rearm()
        begun = time.perf_counter()
        try:
            outcome = self._context.decode(*_batch(parts))
        except Exception:  # noqa: BLE001 - as in _faults_of
            _log.exception("a decode failed")
            outcome = Outcome.FAILED
        seconds = time.perf_counter() - begun
        with self._lock:
            self._in_flight = set()
        if outcome is not Outcome.DONE:
            for part in parts:
                self._context.remove(part.slot.sequence, len(part.slot.cells))
            if outcome is Outcome.FAILED and len(parts) == 1:
                self._tell(parts[0].request, _failed(EngineError("engine.decode_failed")))
            elif outcome is Outcome.FAILED:
                for part in parts:
                    self._decode([part])
            return 0.0
        row = -1
        for part in parts:
            row += len(part.cells)
            part.slot.cells += part.cells
            part.slot.unsaved = True
            with self._faults_of(part.request):
                self._advance(part, row, seconds)
        return seconds

    def _advance(self, part: _Part, row: int, seconds: float) -> None:
        """Update the request of `part` after a decode: report progress and sample the next token. `row`: index of the
        part's last row in the batch. `seconds`: duration of the decode."""
        request = part.request
        if request.reading:
            request.read += len(part.cells)
            request.prefill_s += seconds
            total = len(request.cells) - request.cached
            self._tell(request, Reading(request.read, total))
            if request.sampling is None and request.read == total:
                self._tell(request, Ready(request.stats()))
        if part.logits and request.sampler:
            self._accept(request, part.slot, request.sampler.pick(self._context, row))

    def _accept(self, request: Request, slot: kv_cache.Slot, token: int) -> None:
        """Add a sampled `token` to the answer, or end the answer with it."""
        assert request.sampling
        piece = self._model.piece(token)
        with self._lock:
            if request.ended:
                return
            request.last_at = time.perf_counter()
            request.first_at = request.first_at or request.last_at
            if token in self._bundle.text.eos:
                self._finish(request, "stop")
                return
            request.emit(request.add(token, piece))
            if request.words.stopped:
                self._finish(request, "stop")
            elif len(request.tokens) >= request.sampling.max_tokens or len(slot.cells) >= self._context_tokens:
                self._finish(request, "length")
            else:
                request.next = token


def _is_ahead(other: Request, request: Request) -> bool:
    """Whether `other` is still reading cells that `request` begins with too.

    `request` then waits and shares the KV cache. A question thus reuses the prefill of its picture, and two requests
    about one picture read it once."""
    if other.ended or other.slot is None or not other.reading:
        return False
    return kv_cache.common(other.cells, request.cells) > len(other.slot.cells)


def _share_out(readers: list[Request], budget: int) -> tuple[list[_Part], list[_Part]]:
    """The next parts of the prompts that are being read, at most `budget` cells together: texts, and pictures.

    Texts of neighbouring sequences get equal shares: llama.cpp computes equally many rows of each together, which is
    faster than one after another."""
    texts: list[_Part] = []
    pictures: list[_Part] = []
    sharing = _neighbours(readers, most=budget // settings.PREFILL_LEAST_TOKENS)
    share = budget // max(1, len(sharing))
    for request in dict.fromkeys([*readers[:1], *sharing, *readers]):  # the first one in turn goes first
        part = _next_part(request, min(budget, share) if request in sharing else budget)
        if part is not None:
            budget -= len(part.cells)
            (texts if isinstance(part.cells[0], int) else pictures).append(part)
    return texts, pictures


def _neighbours(readers: list[Request], most: int) -> list[Request]:
    """The first reader of text and those of the sequences after its own, at most `most`."""
    texts = {r.slot.sequence: r for r in readers if r.slot and isinstance(r.cells[len(r.slot.cells)], int)}
    first = next(iter(texts), 0)
    return list(map(texts.__getitem__, takewhile(texts.__contains__, range(first, first + most))))


def _next_part(request: Request, budget: int) -> _Part | None:
    """The next cells of a prompt, at most `budget`, either all tokens or all picture embeddings. None if there is no
    budget or the next picture is not encoded yet."""
    slot = request.slot
    assert slot is not None
    at = len(slot.cells)
    part: list[kv_cache.Cell] = []
    for cell in request.cells[at : at + budget]:
        if not isinstance(cell, int) and cell[0] not in request.embeddings:
            break
        if part and isinstance(cell, int) is not isinstance(part[0], int):
            break
        part.append(cell)
    if not part:
        return None
    return _Part(request, slot, part, logits=request.sampling is not None and at + len(part) == len(request.cells))


def _batch(parts: list[_Part]) -> tuple[list[Row], NDArray[numpy.float32] | None]:
    """The rows of `parts`, and their embeddings, float32 (rows, hidden), if they are pictures."""
    import numpy as np

    rows, seen = [], []
    for part in parts:
        start, last = len(part.slot.cells), len(part.cells) - 1
        for n, cell in enumerate(part.cells):
            token = cell if isinstance(cell, int) else 0
            rows.append(Row(part.slot.sequence, start + n, token, part.logits and n == last))
            if not isinstance(cell, int):
                seen.append(part.request.embeddings[cell[0]][cell[1]])
    return rows, np.stack(seen) if seen else None


def _call(functions: list[Callable[[], None]]) -> None:
    for function in functions:
        function()


def _failed(error: ImpChatError) -> Failed:
    return Failed(error.code, error.values)
