"""Speed of a language model by flash attention, repacking and cache layout: `python -m benchmarks.attention BUNDLE`.

In: a bundle. Out: for each combination, tokens per second of reading and generating, alone and while three other
conversations are in the cache; and the milliseconds to copy a conversation to another sequence, as would be needed
between two copies of the weights. Each is the median of three runs, with the slowest and the fastest.
This file does not know pictures: their positions cost as much as those of text.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from impchat import bundle, settings
from impchat.engines.local.backend import Row
from impchat.engines.local.llama import Context, Model, default_threads

SEQUENCES = 4
RUNS = 3
COMBINATIONS = (  # flash attention, repacking, one buffer for all conversations
    (False, False, False),
    (True, False, False),
    (False, True, False),
    (True, True, False),
    (False, False, True),
)
DEPTH = 350  # a system text, a picture of 196 positions, a question and an answer


class Case:
    """A context with one combination of settings."""

    def __init__(self, path: Path, flash: bool, repacked: bool, unified: bool) -> None:
        self.model = Model(bundle.load(path).language, repacked)
        self.context = Context(
            self.model,
            SEQUENCES,
            1024,
            settings.BATCH_TOKENS,
            default_threads(),
            flash_attention=flash,
            unified=unified,
        )

    def read(self, sequences: Sequence[int], start: int, count: int) -> float:
        """Read `count` tokens of each sequence in one batch. Returns tokens per second."""
        rows = [Row(s, start + n, 100 + n, n == count - 1) for s in sequences for n in range(count)]
        begun = time.perf_counter()
        self.context.decode(rows)
        seconds = time.perf_counter() - begun
        if start or count != DEPTH:  # so that the next run begins at the same depth
            for sequence in sequences:
                self.context.remove(sequence, start)
        return len(rows) / seconds

    def generate(self, sequences: Sequence[int], start: int, count: int = 16) -> float:
        """Decode `count` tokens of each sequence, one step after the other. Returns tokens per second of all."""
        begun = time.perf_counter()
        for n in range(count):
            self.context.decode([Row(s, start + n, 200 + n, True) for s in sequences])
        seconds = time.perf_counter() - begun
        for sequence in sequences:
            self.context.remove(sequence, start)
        return count * len(sequences) / seconds

    def copy(self) -> float:
        """Copy the first conversation to the second sequence, which must be empty. Returns milliseconds."""
        begun = time.perf_counter()
        self.context.share(0, 1, DEPTH)
        seconds = time.perf_counter() - begun
        self.context.remove(1, 0)
        return 1000 * seconds


def measure(path: Path, flash: bool, repacked: bool, unified: bool) -> None:
    """Print a row of the table."""
    case = Case(path, flash, repacked, unified)
    everyone = range(SEQUENCES)
    for sequence in everyone:
        case.read([sequence], 0, DEPTH)
    found = [
        [case.generate(everyone, DEPTH) for _ in range(RUNS)],
        [case.read([0], DEPTH, 50) for _ in range(RUNS)],
        [case.generate([0], DEPTH) for _ in range(RUNS)],
    ]
    for sequence in everyone[1:]:
        case.context.remove(sequence, 0)
    found += [
        [case.read([0], DEPTH, 50) for _ in range(RUNS)],
        [case.generate([0], DEPTH) for _ in range(RUNS)],
    ]
    copied = [case.copy() for _ in range(RUNS)]
    case.context.remove(0, 0)
    found.append([case.generate([0], 0) for _ in range(RUNS)])
    found.append([case.read([0], 0, 300) for _ in range(RUNS)])
    found.append(copied)
    cells = [f"{statistics.median(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in found]
    words = [word for word, on in (("flash attention", flash), ("repacked", repacked), ("one buffer", unified)) if on]
    print(f"| {', '.join(words) or 'none of them'} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed by flash attention, repacking and cache layout.")
    parser.add_argument("bundle", type=Path)
    path = parser.parse_args().bundle
    print(
        "| | four generate | read 50, others | generate, others | read 50 | generate | generate at 0 | read 300 at 0 "
        "| copy, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for combination in COMBINATIONS:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(path, *combination))
        process.start()
        process.join()
        assert process.exitcode == 0


if __name__ == "__main__":
    main()
