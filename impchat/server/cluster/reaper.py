"""A process that outlives another one by a moment: it ends what works in a folder and removes the folder.

In: the folder, and on standard input a pipe that closes with the process it serves, however that ends. Out: nothing is
left of the folder, nor of who had files open in it, but for that process. This file does not know what works there, and
imports nothing of ImpChat: it is run by its path.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from glob import iglob

_AGAIN_S = 0.1


def at_work(folder: str) -> set[int]:
    """The processes that have a file open in `folder`. Without /proc none is found: Ray ends its own there."""
    found = set()
    for link in iglob("/proc/[0-9]*/fd/*"):
        with suppress(OSError):  # it ended, or is somebody else's
            if os.readlink(link).startswith(f"{folder}/"):
                found.add(int(link.split("/")[2]))
    return found


def main(folder: str) -> None:
    served = os.getppid()
    sys.stdin.read()
    while (there := at_work(folder) - {served}) or os.path.exists(folder):
        for pid in there:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_AGAIN_S)


if __name__ == "__main__":
    main(sys.argv[1])
