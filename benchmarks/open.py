"""What opening a model takes, part by part: `python -m benchmarks.open BUNDLE`.

In: the folder of a bundle. Out: on standard output, the median and range of the seconds of each part, each in a fresh
process whose parts run one after another; and of the whole work of the App, in which vision and language load at the
same time, the first time and again. The last column, on Linux alone, is without the time in which the thread could have
run and other processes had the processors; it hardly depends on other work. A first round, which is not counted, brings
the files into the page cache. This file does not know how the parts work.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from impchat import bundle as bundles
from impchat import settings
from impchat.engines.local import llama
from impchat.engines.local.engine import LocalEngine, threads_for
from impchat.engines.local.vision import OnnxVision
from impchat.models import verified

T = TypeVar("T")

RUNS = 7
_SEQUENTIAL = ("compare the files with their hashes", "load llama.cpp", "open the language file",
               "make the KV cache", "load onnxruntime", "open and pack the vision file")  # fmt: skip


class Parts:
    """Part -> its seconds, in all and without waiting for a processor."""

    def __init__(self) -> None:
        self.taken: dict[str, tuple[float, float]] = {}

    def time(self, name: str, work: Callable[[], T]) -> T:
        """The result of `work`, whose time is noted."""
        began, waited = time.perf_counter(), _waited()
        result = work()
        seconds = time.perf_counter() - began
        self.taken[name] = (seconds, seconds - (_waited() - waited))
        return result


def _waited() -> float:
    """The seconds that this thread has waited for a processor; 0 if the system does not report it."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def parts(folder: Path) -> Parts:
    """Each part, one after another."""
    bundle, found = bundles.load(folder), Parts()

    def onnxruntime() -> None:
        import onnxruntime  # noqa: F401

    threads = threads_for(bundle)
    sizes = (settings.SLOTS, bundle.context_tokens, settings.BATCH_TOKENS, threads)
    with tempfile.TemporaryDirectory() as data:
        found.time("compare the files with their hashes", lambda: verified.verify(Path(data), bundle))
        found.time("the same, compared before", lambda: verified.verify(Path(data), bundle))
    found.time("load llama.cpp", llama.binding)
    model = found.time("open the language file", lambda: llama.Model(bundle.language))
    context = found.time("make the KV cache", lambda: llama.Context(model, *sizes))
    found.time("load onnxruntime", onnxruntime)
    found.time("open and pack the vision file", lambda: OnnxVision(bundle, threads))
    found.time("open the vision file without packing", lambda: OnnxVision(bundle, threads, packed=False))
    context.free()
    model.free()
    both = zip(*(found.taken[name] for name in _SEQUENTIAL), strict=True)
    seconds, alone = map(sum, both)
    found.taken["before: all of this one after another"] = (seconds, alone)
    return found


def whole(folder: Path, data: Path, name: str) -> Parts:
    """What the App does before the first question."""
    bundle, found = bundles.load(folder), Parts()

    def load() -> LocalEngine:
        verified.verify(data, bundle)
        return LocalEngine(bundle)

    found.time(name, load).close()
    return found


def main(argv: list[str]) -> None:
    """Measure the bundle `argv[0]`, or, in a process of its own, one round of it (`argv[1]`)."""
    folder = Path(argv[0])
    if len(argv) > 1:
        print(json.dumps((parts(folder) if argv[1] == "parts" else whole(folder, Path(argv[2]), argv[1])).taken))
        return
    taken: dict[str, list[tuple[float, float]]] = {}
    for number in range(RUNS + 1):
        with tempfile.TemporaryDirectory() as data:
            for work in (["parts"], ["now: the first time", data], ["now: again", data]):
                command = [sys.executable, "-m", "benchmarks.open", str(folder), *work]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                for name, times in json.loads(done.stdout).items():
                    taken.setdefault(name, []).extend([times] if number else [])
    print(f"{RUNS} rounds, seconds: median, minimum, maximum; median without waiting for a processor")
    for name, rounds in taken.items():
        seconds, alone = zip(*rounds, strict=True)
        figures = (statistics.median(seconds), min(seconds), max(seconds), statistics.median(alone))
        print(f"{name:40}", *(f"{figure:6.2f}" for figure in figures))


if __name__ == "__main__":
    main(sys.argv[1:])
