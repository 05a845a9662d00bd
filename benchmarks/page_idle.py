"""What ImpChat-Web costs when idle: `python -m benchmarks.page_idle`.

In: nothing. Out: on standard output, the CPU time of `impchat web` in a minute, and how often it woke up: before the
first page was opened, and with an open page that has had an answer. Linux only.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import httpx

from benchmarks.page_memory import converse, served

SECONDS = 60.0
_SETTLED_S = 5.0


def taken(pid: int) -> tuple[float, int]:
    """CPU seconds, and voluntary context switches of all threads of the process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    slept = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = status.read_text(encoding="ascii").splitlines()
        slept += int(next(line for line in lines if line.startswith("voluntary_ctxt")).split()[1])
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), slept


def _report(what: str, pid: int) -> None:
    time.sleep(_SETTLED_S)
    seconds, slept = taken(pid)
    time.sleep(SECONDS)
    seconds_after, slept_after = taken(pid)
    spent = seconds_after - seconds
    print(f"{what}: {spent:.2f} s in {SECONDS:.0f} s ({100 * spent / SECONDS:.2f} % of a core), ", end="")
    print(f"{(slept_after - slept) / SECONDS:.1f} wake-ups a second", flush=True)


def main() -> int:
    with served() as (address, pid), httpx.Client(base_url=address, timeout=120, trust_env=False) as client:
        _report("no page yet", pid)
        converse(client, random.Random(1))
        _report("a page open", pid)
    return 0


if __name__ == "__main__":
    sys.exit(main())
