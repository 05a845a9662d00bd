"""Measures which settings run a model fastest on this machine.

In: a bundle. Out: a `Result`: a `Tuning`, and the figures that it was chosen by.
The language model's combinations take turns, and the fastest round of each counts: other work on the machine only adds
time. Those that are clearly slower leave after two rounds. What is compared is the time of a question in a conversation
that has a picture: `settings.TUNE_*`, docs/decisions/flash-attention-and-repacking.md.
This file does not know where results are stored, or whether there is memory for a second copy of the weights.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

from impchat import machine, settings
from impchat.bundle import Bundle
from impchat.engines.local.backend import Outcome, Row
from impchat.engines.local.llama import Context, Model, default_threads
from impchat.engines.local.tuning import Tuning, default
from impchat.engines.local.vision import OnnxVision
from impchat.errors import EngineError
from impchat.messages import Picture

_LEAST_ROUNDS = 2
_PICTURES = 3  # encoded by each combination of the vision encoder, after a first one that warms it up


@dataclass(frozen=True, slots=True)
class Step:
    """Progress: step `number`, from 1, of `total`."""

    part: Literal["open", "words", "eyes"]  # what begins now
    number: int
    total: int


Watch = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Words:
    """A combination of the language model's settings, and its figures in the fastest of its rounds."""

    flash_attention: bool
    repacked: bool
    threads: int
    read_tokens_s: float
    generate_tokens_s: float
    memory_bytes: int  # anonymous; 0: unknown
    rounds: int  # in which it was measured

    @property
    def seconds(self) -> float:
        """What is compared: the seconds to read a question, weighted, and to answer it."""
        reading = settings.TUNE_READ_TOKENS / self.read_tokens_s
        return settings.TUNE_READ_WEIGHT * reading + settings.TUNE_ANSWER_TOKENS / self.generate_tokens_s


@dataclass(frozen=True, slots=True)
class Eyes:
    """A combination of the vision encoder's settings, and its figures."""

    packed: bool
    threads: int
    seconds: float  # for a picture, the fastest of some
    memory_bytes: int  # anonymous; 0: unknown


@dataclass(frozen=True, slots=True)
class Result:
    """`words` and `eyes`: every combination that was measured, in order. `eyes` is empty for a bundle without an ONNX
    vision file: llama.cpp's encoder has no settings but threads."""

    tuning: Tuning
    words: tuple[Words, ...]
    eyes: tuple[Eyes, ...]


def measure(
    bundle: Bundle,
    *,
    may_repack: bool,
    watch: Watch,
    rounds: int = settings.TUNE_ROUNDS,
    threads: Sequence[int] = (),
) -> Result:
    """Measure `bundle` on this machine; at full size this takes about a minute. `may_repack`: there is memory for
    a copy of the language model's weights. `watch` is called before each step. `threads`: the numbers to try, the
    default first; if empty, those of `thread_counts`. KeyboardInterrupt frees everything.

    Raises ModelError "model.load_failed", EngineError "engine.not_installed", "engine.out_of_memory" or
    "engine.decode_failed"."""
    usual = default(bundle)
    counts = threads or thread_counts(bundle)
    eyes = [] if bundle.mmproj else [*((True, count) for count in counts), (False, usual.vision_threads)]
    switches = [(flash, repacked) for repacked in (False, True)[: 1 + may_repack] for flash in (False, True)]
    steps = _Steps(watch, len(switches) + rounds + len(eyes))
    words = _measure_words(bundle, switches, counts, rounds, steps)
    seen = tuple(_measure_eyes(bundle, eyes, steps))
    return Result(choose(usual, words, seen), words, seen)


def thread_counts(bundle: Bundle) -> tuple[int, ...]:
    """Numbers of threads worth trying: the default first, then all processors, one per core, and half of the cores.
    Only the default for a small model: what is faster for it now is far slower when the machine has other work."""
    usual = default(bundle).threads
    if bundle.size_bytes < settings.SMALL_MODEL_BYTES:
        return (usual,)
    every, cores = default_threads(), machine.physical_cores()
    counts = (usual, every, cores, (cores or every) // 2)
    return tuple(dict.fromkeys(count for count in counts if 0 < count <= every))


def choose(usual: Tuning, words: Sequence[Words], eyes: Sequence[Eyes]) -> Tuning:
    """The best of the combinations. `usual`, which must be among them, stays unless another one is clearly faster
    (`settings.TUNE_MARGIN`). Repacked and packed weights, which take memory, must be clearly faster than others."""
    best = next(w for w in words if _of(w) == (usual.flash_attention, usual.repacked, usual.threads))
    for repacked in (False, True):
        fastest = min((w for w in words if w.repacked is repacked), key=lambda w: w.seconds, default=best)
        if fastest.seconds * settings.TUNE_MARGIN < best.seconds:
            best = fastest
    chosen = replace(usual, flash_attention=best.flash_attention, repacked=best.repacked, threads=best.threads)
    if not eyes:
        return replace(chosen, vision_threads=best.threads)
    sight = next(e for e in eyes if (e.packed, e.threads) == (usual.packed, usual.vision_threads))
    quickest = min(eyes, key=lambda e: e.seconds)
    if quickest.seconds * settings.TUNE_MARGIN < sight.seconds:
        sight = quickest
    lean = min((e for e in eyes if not e.packed), key=lambda e: e.seconds, default=sight)
    if lean.seconds <= sight.seconds * settings.TUNE_MARGIN:
        sight = lean
    return replace(chosen, packed=sight.packed, vision_threads=sight.threads)


def _of(words: Words) -> tuple[bool, bool, int]:
    return words.flash_attention, words.repacked, words.threads


class _Steps:
    def __init__(self, watch: Watch, total: int) -> None:
        self._watch, self._total, self._number = watch, total, 0

    def next(self, part: Literal["open", "words", "eyes"]) -> None:
        self._number += 1
        self._watch(Step(part, self._number, self._total))


# The language model


@dataclass(slots=True)
class _Case:
    """A combination that is being measured. Several have one context, with different threads."""

    context: Context
    flash_attention: bool
    repacked: bool
    threads: int
    memory_bytes: int
    reading: list[float] = field(default_factory=list)  # seconds for TUNE_READ_TOKENS
    generating: list[float] = field(default_factory=list)  # seconds for a token

    def run(self) -> None:
        """Measure once."""
        self.context.use_threads(self.threads)
        depth, count = settings.TUNE_DEPTH, settings.TUNE_READ_TOKENS
        self.reading.append(_decode(self.context, depth, count))
        self.context.remove(0, depth)
        steps = settings.TUNE_GENERATED_TOKENS
        self.generating.append(sum(_decode(self.context, depth + n, 1) for n in range(steps)) / steps)
        self.context.remove(0, depth)

    @property
    def words(self) -> Words:
        return Words(
            self.flash_attention,
            self.repacked,
            self.threads,
            settings.TUNE_READ_TOKENS / min(self.reading),
            1 / min(self.generating),
            self.memory_bytes,
            len(self.reading),
        )


def _measure_words(
    bundle: Bundle, switches: Sequence[tuple[bool, bool]], counts: Sequence[int], rounds: int, steps: _Steps
) -> tuple[Words, ...]:
    """`switches`: the combinations of flash attention and repacking. `counts`: numbers of threads, the default
    first."""
    with ExitStack() as opened:
        cases = list(_open(bundle, switches, counts[0], opened, steps))
        others = [replace(case, threads=n, reading=[], generating=[]) for n in counts[1:] for case in cases]
        running = list(cases)
        for number in range(rounds):
            steps.next("words")
            if number == _LEAST_ROUNDS:  # other threads only for the combinations that are left
                left = [case.context for case in running]
                others = [case for case in others if case.context in left]
                running, cases = running + others, cases + others
            for case in running:
                case.run()
            limit = settings.TUNE_DROP * min(case.words.seconds for case in running)
            running = [case for case in running if len(case.reading) < _LEAST_ROUNDS or case.words.seconds <= limit]
        return tuple(case.words for case in cases)


def _open(
    bundle: Bundle, switches: Sequence[tuple[bool, bool]], threads: int, opened: ExitStack, steps: _Steps
) -> Iterator[_Case]:
    """A case for each of `switches`, its context filled to `settings.TUNE_DEPTH`. `opened` frees them."""
    cells = settings.TUNE_DEPTH + settings.TUNE_READ_TOKENS + settings.TUNE_GENERATED_TOKENS
    models: dict[bool, tuple[Model, int]] = {}  # repacked -> the model, and the memory that it takes
    for flash, repacked in switches:
        steps.next("open")
        before = machine.own_memory_bytes()
        if repacked not in models:
            model = Model(bundle.language, repacked)
            opened.callback(model.free)
            models[repacked] = model, machine.own_memory_bytes() - before
            before = machine.own_memory_bytes()
        model, weights = models[repacked]
        context = Context(model, 1, cells, settings.BATCH_TOKENS, threads, flash_attention=flash)
        opened.callback(context.free)
        _decode(context, 0, settings.TUNE_DEPTH)
        yield _Case(context, flash, repacked, threads, max(0, weights + machine.own_memory_bytes() - before))


def _decode(context: Context, start: int, count: int) -> float:
    """Decode `count` tokens from position `start`. Returns the seconds that it took."""
    rows = [Row(0, start + n, (start + n) % 100, n == count - 1) for n in range(count)]
    begun = time.perf_counter()
    if context.decode(rows) is not Outcome.DONE:
        raise EngineError("engine.decode_failed")
    return time.perf_counter() - begun


# The vision encoder


def _measure_eyes(bundle: Bundle, combinations: list[tuple[bool, int]], steps: _Steps) -> Iterator[Eyes]:
    for packed, threads in combinations:
        steps.next("eyes")
        before = machine.own_memory_bytes()
        vision = OnnxVision(bundle, threads, packed)
        drawn = _drawing()
        times = []
        for number in range(1 + _PICTURES):
            begun = time.perf_counter()
            vision.encode(replace(drawn, sha256=str(number)))  # another hash: it is not in the cache
            times.append(time.perf_counter() - begun)
        taken = max(0, machine.own_memory_bytes() - before)
        vision.free()
        del vision
        yield Eyes(packed, threads, min(times[1:]), taken)


def _drawing() -> Picture:
    from PIL import Image

    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "PNG")
    return Picture(hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue())
