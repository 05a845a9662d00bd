"""Read the header of a GGUF file: the metadata and the list of tensors before their data.

In: a file. Out: its keys and values, and the sizes of its tensors. This file does not know what they mean, or any
model.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from impchat.errors import ModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32  # of the data of tensors, if the metadata does not say otherwise
# The format's numbers of value types -> letters of struct
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_DEEPEST = 4  # nesting of arrays


class _NotGguf(Exception):
    pass


def read(path: Path) -> dict[str, Any]:
    """Key -> number, text, bool or list of the GGUF file `path`.

    Raises ModelError "gguf.missing" (no such file) or "gguf.broken" (not GGUF, an unknown version, or truncated)."""
    with _opened(path) as reader:
        return reader.values()


def tensor_bytes(path: Path) -> dict[str, int]:
    """Name -> size in the file, including padding, of each tensor of the GGUF file `path`. Raises as `read`."""
    with _opened(path) as reader:
        begins = sorted((offset, name) for name, offset in reader.offsets().items())
        total = max(path.stat().st_size - reader.data_start(), 0)
    ends = [offset for offset, _ in begins[1:]] + [total]
    return {name: end - offset for (offset, name), end in zip(begins, ends, strict=True)}


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    try:
        with path.open("rb") as source:
            yield _Reader(source)
    except _NotGguf as exc:
        raise ModelError("gguf.broken", path=str(path), detail=str(exc)) from exc
    except OSError as exc:
        raise ModelError("gguf.missing", path=str(path), detail=exc.strerror or str(exc)) from exc


class _Reader:
    """Does not trust lengths in the file: never reads beyond its end."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._left = os.fstat(source.fileno()).st_size

    def values(self) -> dict[str, Any]:
        """The metadata. Call it first, and once."""
        if self._take(4) != _MAGIC:
            raise _NotGguf("it does not begin with GGUF")
        version = self._number("I")
        if version not in _VERSIONS:
            raise _NotGguf(f"version {version}")
        self._tensors = int(self._number("Q"))
        found = {self._text(): self._value(self._number("I")) for _ in range(self._number("Q"))}
        self._alignment = int(found.get("general.alignment", _ALIGNMENT))
        return found

    def offsets(self) -> dict[str, int]:
        """Name -> where the tensor begins, in bytes after `data_start`. Reads the metadata too."""
        self.values()
        found = {}
        for _ in range(self._tensors):
            name = self._text()
            self._take(8 * self._number("I") + 4)  # its shape and type
            found[name] = int(self._number("Q"))
        return found

    def data_start(self) -> int:
        """Where the data of the tensors begins; call it after `offsets`."""
        return -(-self._source.tell() // self._alignment) * self._alignment

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self._text()
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind != _ARRAY or depth == _DEEPEST:
            raise _NotGguf(f"a value of type {kind}")
        inner, count = self._number("I"), self._number("Q")
        if inner not in _NUMBERS:
            return [self._value(inner, depth + 1) for _ in range(count)]
        letter = _NUMBERS[inner]
        return [*struct.unpack(f"<{count}{letter}", self._take(count * struct.calcsize(letter)))]

    def _text(self) -> str:
        return self._take(self._number("Q")).decode("utf-8", "replace")

    def _number(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self._take(struct.calcsize(f"<{letter}")))[0]

    def _take(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise _NotGguf("it is cut short")
        return self._source.read(count)
