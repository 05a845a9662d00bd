"""A file lock that the operating system releases when its holder exits, for whatever reason.

In: a path. Out: whether this process holds the lock, or whether another holder does. Two holders in one process exclude
each other too.
This file does not know what the locks protect.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL_S = 0.02


class FileLock:
    """An exclusive lock on the file `path`, which is created if missing. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self, timeout_s: float = 0.0) -> bool:
        """Acquire the lock; False if another holder keeps it for `timeout_s` seconds. Raises OSError for an unusable
        path."""
        give_up = time.monotonic() + timeout_s
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _try_lock(file):
                if time.monotonic() >= give_up:
                    return False
                time.sleep(_POLL_S)
            self._file, file = file, -1
            return True
        finally:
            if file >= 0:
                os.close(file)

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def is_held(path: Path) -> bool:
    """Whether a running process holds the lock on `path`; False if the file does not exist."""
    if not path.exists():
        return False
    lock = FileLock(path)
    free = lock.acquire()
    lock.release()
    return not free


def _try_lock(file: int) -> bool:
    if sys.platform == "win32":
        with contextlib.suppress(OSError):
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            return True
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
