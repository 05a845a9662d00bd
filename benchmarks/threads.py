"""One thread or two for the demo model: `python -m benchmarks.threads`.

In: the demo bundle. Out: on standard output, tokens per second with one and two threads, on an idle machine and with
busy processes on all CPUs but one. The prompt has no picture.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from impchat import bundle, paths, settings
from impchat.engines.local.engine import LocalEngine
from impchat.messages import Finished, Prompt, Sampling, Turn

RUNS = 7
QUESTION = Prompt(settings.SYSTEM, (Turn("user", "Who are you?"),))


def speeds(threads: int) -> list[float]:
    """Generated tokens per second of each run except the first."""
    engine = LocalEngine(bundle.load(paths.demo_bundle()), threads=threads)
    try:
        taken = []
        for _ in range(RUNS + 1):
            last = list(engine.start(QUESTION, Sampling(temperature=0.0)).events())[-1]
            assert isinstance(last, Finished)
            taken.append(last.stats.generated_tokens_per_s)
        return taken[1:]
    finally:
        engine.close()


def main() -> None:
    """Print a line for each of the four cases."""
    for busy in (0, max(1, (os.cpu_count() or 1) - 1)):
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            for threads in (1, 2):
                found = speeds(threads)
                middle, spread = statistics.median(found), f"{min(found):.0f} to {max(found):.0f}, {RUNS} runs"
                print(f"{busy} busy processes beside, {threads} thread(s): median {middle:.0f} tokens/s, {spread}")
        finally:
            for other in others:
                other.kill()
                other.wait()


if __name__ == "__main__":
    main()
