"""How long the core takes to import: `python -m benchmarks.start`.

In: nothing. Out: on standard output, the median and range of the seconds that `import impchat.app` (which imports the
whole core) takes in a fresh interpreter, next to those of a bare interpreter.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15


def seconds(code: str) -> float:
    """Wall-clock seconds of a fresh interpreter that runs `code`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print a line for each of the two."""
    taken: dict[str, list[float]] = {"pass": [], "import impchat.app": []}
    for _ in range(RUNS):  # alternating, so that other load on the machine affects both
        for code, times in taken.items():
            times.append(seconds(code))
    for code, times in taken.items():
        print(f"{code}: median {statistics.median(times):.3f} s, {min(times):.3f} to {max(times):.3f} s, {RUNS} runs")


if __name__ == "__main__":
    main()
