"""The time and memory that a block of code takes, for the other benchmarks. Linux only.

In: a block of code. Out: a line on standard output. This file does not know what is measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from impchat.bench.resources import resident

_SAMPLE_S = 0.05


def taken() -> tuple[int, int]:
    """`resources.resident` of this process."""
    sizes = resident()
    assert sizes, "there is no /proc/self/status"
    return sizes


@contextmanager
def measured(step: str) -> Iterator[None]:
    """Print the duration of the block, and the peak of either kind of memory of this process."""
    most = taken()
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(_SAMPLE_S):
            own, mapped = taken()
            most = max(most[0], own), max(most[1], mapped)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - begun
        ended.set()
        watcher.join()
    own, mapped = (size / 1e9 for size in most)
    print(f"{step}: {seconds:.1f} s; most memory {own:.2f} GB of its own, {mapped:.2f} GB of mapped files", flush=True)
