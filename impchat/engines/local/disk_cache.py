"""A folder of files that can be computed again: KV states and the embeddings of pictures.

In: a name, a description and bytes. Out: the same, if the file is whole. A file holds the bytes, then the description
as JSON, then a checksum of both: a file that was cut off, or changed on the disk, is removed when it is found. Only the
owner can read the files. The folder has a byte budget, and those that were used least recently are removed first.
Errors of the disk are not raised: without a cache everything is computed again.
This file does not know what the bytes mean.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat import machine, paths, settings
from impchat.errors import HistoryError
from impchat.files import write_atomic

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)
_TAIL = struct.Struct("<4xIQ8s")  # crc32 of everything before, length of the description, magic
_MAGIC = b"impcache"
_LEFTOVER_S = 3600.0  # an unfinished file this old belongs to a process that was killed


class DiskCache:
    """The files in `folder`, which is created with the first one; at most `limit_bytes` together. Several processes may
    use one folder. All methods may be called from any thread."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._known: dict[tuple[str, int, int], Any] = {}  # (name, time of change, size) -> description

    def descriptions(self) -> dict[str, Any]:
        """Name -> description of every file. Reads only files that are new; removes those without a description."""
        known, found = {}, {}
        for name, status in self._files():
            identity = name, status.st_mtime_ns, status.st_size
            description = self._known.get(identity)
            if description is None:
                description = self._description(name)
            if description is None:
                self.remove(name)
                continue
            known[identity] = found[name] = description
        self._known = known
        return found

    def read(self, name: str) -> tuple[Any, NDArray[numpy.uint8]] | None:
        """The description and the bytes of a file, which then counts as used. None if there is none, if it is damaged
        (it is then removed), or if it would take more than half of the free memory."""
        import numpy as np

        memory = machine.memory()
        try:
            with open(self._folder / name, "rb") as file:
                if memory and os.fstat(file.fileno()).st_size > memory.free / 2:
                    return None
                content = np.fromfile(file, np.uint8)
        except OSError:
            return None
        end = len(content) - _TAIL.size
        crc, length, magic = _TAIL.unpack(content[end:].tobytes()) if end >= 0 else (0, 0, b"")
        if magic != _MAGIC or length > end or zlib.crc32(content.data[:end]) != crc:
            self.remove(name)
            return None
        with suppress(OSError):
            os.utime(self._folder / name)
        return json.loads(content[end - length : end].tobytes()), content[: end - length]

    def write(self, name: str, description: Any, data: memoryview) -> None:
        """Write a file, or replace it. Does nothing if the disk is nearly full."""
        words = json.dumps(description, separators=(",", ":")).encode()
        tail = _TAIL.pack(zlib.crc32(words, zlib.crc32(data)), len(words), _MAGIC)
        size = data.nbytes + len(words) + len(tail)
        try:
            paths.ensure_data_dir(self._folder)
            if size > self._limit_bytes or shutil.disk_usage(self._folder).free - size < settings.DISK_LOW_BYTES:
                return
            write_atomic(self._folder / name, data, words, tail, durable=False)
            self._prune()
        except (OSError, HistoryError) as exc:
            _log.warning("a cache file was not written: %s", type(exc).__name__)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """The names and states of the files, those used least recently first. Removes leftovers."""
        found = []
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                with suppress(OSError):  # another process has just removed it
                    status = entry.stat()
                    if not entry.name.startswith("."):
                        found.append((entry.name, status))
                    elif time.time() - status.st_mtime > _LEFTOVER_S:
                        os.unlink(entry.path)
        return sorted(found, key=lambda file: file[1].st_mtime_ns)

    def _description(self, name: str) -> Any | None:
        """The description at the end of a file, without checking its bytes. None if it has none."""
        try:
            with open(self._folder / name, "rb") as file:
                file.seek(-_TAIL.size, os.SEEK_END)
                _, length, magic = _TAIL.unpack(file.read())
                if magic != _MAGIC:
                    return None
                file.seek(-_TAIL.size - length, os.SEEK_END)
                return json.loads(file.read(length))
        except (OSError, ValueError):
            return None

    def _prune(self) -> None:
        files = self._files()
        excess = sum(status.st_size for _, status in files) - self._limit_bytes
        for name, status in files:
            if excess <= 0:
                return
            self.remove(name)
            excess -= status.st_size


def identity(*parts: object) -> str:
    """A short name for a combination of model files, versions and settings, as 16 hex digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
