"""The KV states of conversations on disk, so that nothing is read again after a restart.

In: the cells of a sequence, and its state as llama.cpp exports it. Out: the state with the longest beginning of a
prompt. A state is used only by the model and the settings that made it.
This file does not know when states are saved, or how they are put into a KV cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from impchat import paths
from impchat.engines.local.disk_cache import DiskCache
from impchat.engines.local.kv_cache import Cell
from impchat.errors import ImpChatError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class KvState:
    """The state of one sequence."""

    cells: list[Cell]
    data: NDArray[numpy.uint8]


class KvStates:
    """The states in `cache` that `model` made. `is_wanted`: whether the conversation with this key may be saved; called
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

    def longest(self, prompt: Sequence[Cell], limit: int) -> tuple[str, int]:
        """The name of the state with the longest beginning of `prompt`, the shortest of several, and the number of
        cells that they share; ("", 0) if there is none. Longer ones than `limit` cells do not count. Removes the states
        of other models and settings."""
        best, most, shortest = "", 0, 0
        for name, description in self._cache.descriptions().items():
            runs = self._runs_of(description)
            if runs is None:
                self._cache.remove(name)
                continue
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(_cells(runs), prompt, strict=False)))
            if same < max(1, most):
                continue
            length = sum(1 if isinstance(run, int) else run[1] for run in runs)
            if length <= limit and (same > most or length < shortest):
                best, most, shortest = name, same, length
        return best, most

    def load(self, name: str) -> KvState | None:
        """The state with this name. None if it is damaged, removed or replaced by one of another model, or if there is
        no memory for it."""
        found = self._cache.read(name)
        runs = self._runs_of(found[0]) if found else None
        return KvState(list(_cells(runs)), found[1]) if found and runs is not None else None

    def save(self, key: str, cells: Sequence[Cell], data: NDArray[numpy.uint8]) -> None:
        """Save the state of the conversation `key` in place of its earlier one."""
        name = paths.kv_state_name(key)
        if self.is_wanted(key):
            self._cache.write(name, {"model": self._model, "cells": _runs(cells)}, data.data)
            if not self.is_wanted(key):
                self._cache.remove(name)

    def _runs_of(self, description: Any) -> list[Any] | None:
        """The cells in a description, as `_runs` made them; None if it is not one of this model."""
        match description:
            case {"model": self._model, "cells": [*runs]}:
                return runs
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


def _cells(runs: Sequence[Any]) -> Iterator[Cell]:
    """The opposite of `_runs`, one after another: a comparison mostly ends at the first picture."""
    for run in runs:
        if isinstance(run, int):
            yield run
        else:
            yield from ((run[0], n) for n in range(run[1]))
