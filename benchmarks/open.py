"""What opening a model takes, part by part: `python -m benchmarks.open BUNDLE`.

In: the folder of a bundle. Out: on standard output, the median and range of the seconds of each part, each in a fresh
process whose parts run one after another; and of the App's whole work, in which vision and language load at the same
time, the first time and again. A first round, which is not counted, brings the files into the page cache.
This file does not know how the parts work.
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
from impchat.app import App
from impchat.engines.local import llama
from impchat.engines.local.engine import threads_for
from impchat.engines.local.vision import OnnxVision
from impchat.models import verified

T = TypeVar("T")

RUNS = 7
_SEQUENTIAL = ("compare the files with their hashes", "load llama.cpp", "open the language file",
               "make the KV cache", "load onnxruntime", "open and pack the vision file")  # fmt: skip


def parts(folder: Path) -> dict[str, float]:
    """Part -> seconds, in this process, one after another."""
    bundle = bundles.load(folder)
    taken: dict[str, float] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = work()
        taken[name] = time.perf_counter() - began
        return result

    def onnxruntime() -> None:
        import onnxruntime  # noqa: F401

    threads = threads_for(bundle)
    with tempfile.TemporaryDirectory() as data:
        timed("compare the files with their hashes", lambda: verified.verify(Path(data), bundle))
        timed("the same, compared before", lambda: verified.verify(Path(data), bundle))
    timed("load llama.cpp", llama.binding)
    model = timed("open the language file", lambda: llama.Model(bundle.language))
    sizes = (settings.SLOTS, bundle.context_tokens, settings.BATCH_TOKENS, threads)
    context = timed("make the KV cache", lambda: llama.Context(model, *sizes))
    timed("load onnxruntime", onnxruntime)
    timed("open and pack the vision file", lambda: OnnxVision(bundle, threads))
    timed("open the vision file without packing", lambda: OnnxVision(bundle, threads, packed=False))
    context.free()
    model.free()
    taken["before: all of this one after another"] = sum(taken[name] for name in _SEQUENTIAL)
    return taken


def whole(folder: Path, data: Path, name: str) -> dict[str, float]:
    """The seconds from asking the App for its engine until it is there, in this process."""
    with App.open(data, folder) as app:
        began = time.perf_counter()
        assert app.engine
        return {name: time.perf_counter() - began}


def main(argv: list[str]) -> None:
    """Measure the bundle `argv[0]`, or, in a process of its own, one round of it (`argv[1]`)."""
    folder = Path(argv[0])
    if len(argv) > 1:
        print(json.dumps(parts(folder) if argv[1] == "parts" else whole(folder, Path(argv[2]), argv[1])))
        return
    taken: dict[str, list[float]] = {}
    for number in range(RUNS + 1):
        with tempfile.TemporaryDirectory() as data:
            for work in (["parts"], ["now: the App, the first time", data], ["now: the App, again", data]):
                command = [sys.executable, "-m", "benchmarks.open", str(folder), *work]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                for name, seconds in json.loads(done.stdout).items():
                    taken.setdefault(name, []).extend([seconds] if number else [])
    print(f"{RUNS} rounds, seconds: median, minimum, maximum")
    for name, times in taken.items():
        print(f"{name:42} {statistics.median(times):6.2f} {min(times):6.2f} {max(times):6.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
