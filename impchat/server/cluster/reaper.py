"""A helper process that cleans up after its parent: it kills the processes that use a folder and removes the folder.

In: the folder, and on standard input a pipe that closes when the parent ends, even if it is killed. Out: the folder and
every process with a file open in it are gone, except the parent. This file does not know what those processes are, and
imports nothing of ImpChat, because it is run by its path.
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
    """The ids of the processes with a file open in `folder`. Empty on systems without /proc, where Ray's processes end
    by themselves."""
    found = set()
    for link in iglob("/proc/[0-9]*/fd/*"):
        with suppress(OSError):  # it has ended, or belongs to another user
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
