"""The memory of a process that runs for long. In: nothing. Out: a setting of the C library, where it has one."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 1 << 20


def give_back() -> None:
    """Let a large block go back to the system as soon as it is freed. Else glibc comes to keep blocks of up to 32 MB,
    in each thread's arena: a few photos of 12 megapixels leave 200 MB that nothing uses."""
    with suppress(AttributeError, OSError, TypeError):  # no glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
