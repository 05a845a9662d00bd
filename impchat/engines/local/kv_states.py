"""The KV states of conversations on disk, so that nothing is read again after a restart.

In: the cells of a sequence, and its state as llama.cpp exports it. Out: the state with the longest beginning of a
prompt. A state is used only by the model and the settings that made it.
This file does not know when states are saved, or how they are put into a KV cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from impchat import paths
from impchat.engines.local.disk_cache import DiskCache
from impchat.engines.local.kv_cache import Cell, common
from impchat.errors import ImpChatError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class KvState:
    """The state of one sequence."""

    name: str  # of its file
    cells: list[Cell]
    data: NDArray[numpy.uint8]


class KvStates:
    """The states in `cache` that `model` made. `is_wanted`: whether the conversation with this key may be saved; asked
    before and after each write, because it may be deleted at any time. All methods may be called from any thread."""

    def __init__(self, cache: DiskCache, model: str, is_wanted: Callable[[str], bool]) -> None:
        self._cache = cache
        self._model = model
        self._is_wanted = is_wanted

    def is_wanted(self, key: str) -> bool:
        """Whether the state of the conversation `key` may be saved."""
        try:
            return self._is_wanted(key)
        except ImpChatError:  # such as a database that another process has locked
            return False

    def longest(self, prompt: Sequence[Cell]) -> tuple[str, int]:
        """The name of the state with the longest beginning of `prompt`, the shortest of several, and the number of
        cells that they share; ("", 0) if there is none. Removes the states of other models and settings."""
        best, most, shortest = "", 0, 0
        for name, description in self._cache.descriptions().items():
            cells = self._cells(description)
            if cells is None:
                self._cache.remove(name)
                continue
            same = common(cells, prompt)
            if same and (same, -len(cells)) > (most, -shortest):
                best, most, shortest = name, same, len(cells)
        return best, most

    def load(self, name: str) -> KvState | None:
        """The state with this name. None if it is damaged or has been removed."""
        cells = self._cells(self._cache.descriptions().get(name))
        data = self._cache.read(name)
        return None if cells is None or data is None else KvState(name, cells, data)

    def save(self, key: str, cells: Sequence[Cell], data: NDArray[numpy.uint8]) -> None:
        """Save the state of the conversation `key` in place of its earlier one."""
        name = paths.kv_state_name(key)
        if self.is_wanted(key):
            self._cache.write(name, {"model": self._model, "cells": _runs(cells)}, data.data)
            if not self.is_wanted(key):
                self._cache.remove(name)

    def remove(self, name: str) -> None:
        self._cache.remove(name)

    def _cells(self, description: Any) -> list[Cell] | None:
        """The cells in a description; None if it is not one of this model."""
        match description:
            case {"model": self._model, "cells": [*runs]}:
                return _unpacked(runs)
        return None


def _runs(cells: Sequence[Cell]) -> list[int | list[str | int]]:
    """`cells` with each picture as [sha256, number of its cells]."""
    runs: list[int | list[str | int]] = []
    for cell in cells:
        if isinstance(cell, int):
            runs.append(cell)
        elif cell[1] == 0:
            runs.append([cell[0], 1])
        else:
            runs[-1] = [cell[0], cell[1] + 1]
    return runs


def _unpacked(runs: Sequence[Any]) -> list[Cell]:
    """The opposite of `_runs`."""
    cells: list[Cell] = []
    for run in runs:
        if isinstance(run, int):
            cells.append(run)
        else:
            cells += [(run[0], n) for n in range(run[1])]
    return cells
