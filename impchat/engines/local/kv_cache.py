"""Bookkeeping of the KV cache: which conversation each slot holds, and how much of a new prompt is cached.

In: prompts as cells, one per cache position. Out: a slot that holds the longest cached beginning of the prompt and
nothing else. This file does not know how cells are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from impchat.messages import Picture
from impchat.prompts import Piece

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from impchat.engines.local.kv_states import KvState

Cell = int | tuple[str, int]
"""The input at one position of the cache: a token id, or (sha256, n) for the n-th embedding of a picture."""


class Memory(Protocol):
    """The operations that `Slots` needs from the cache itself (`backend.Context`)."""

    def remove(self, sequence: int, start: int) -> None: ...

    def share(self, source: int, target: int, end: int) -> None: ...

    def restore(self, sequence: int, state: NDArray[numpy.uint8]) -> bool: ...


def cells(pieces: Iterable[Piece], picture_tokens: int) -> list[Cell]:
    """The cells of a rendered prompt. Each picture takes `picture_tokens` cells."""
    row: list[Cell] = []
    for piece in pieces:
        if isinstance(piece, Picture):
            row += [(piece.sha256, n) for n in range(picture_tokens)]
        else:
            row += piece.ids
    return row


def common(a: Sequence[Cell], b: Sequence[Cell]) -> int:
    """The length of the common prefix."""
    shorter = min(len(a), len(b))
    return next((n for n in range(shorter) if a[n] != b[n]), shorter)


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the KV cache. `cells` always matches its content exactly."""

    sequence: int
    cells: list[Cell] = field(default_factory=list)
    key: str = ""  # of the latest prompt
    busy: bool = False  # a request is using it
    used: int = 0  # time of the latest use; larger is later
    unsaved: bool = False  # cells were decoded since its state was saved


class Slots:
    """The slots of one cache. Use it only on the thread that decodes."""

    def __init__(self, memory: Memory, count: int, save: Callable[[list[Slot]], None] = lambda slots: None) -> None:
        """`save`: called with a slot that is unsaved before another conversation gets it."""
        self._memory = memory
        self._save = save
        self._slots = [Slot(n) for n in range(count)]
        self._clock = 0

    @property
    def full(self) -> bool:
        """Whether every slot is busy."""
        return all(slot.busy for slot in self._slots)

    @property
    def unsaved(self) -> list[Slot]:
        """The slots of conversations whose state has changed since it was saved."""
        return [slot for slot in self._slots if slot.unsaved and slot.key]

    def longest(self, prompt: Sequence[Cell]) -> int:
        """The length of the longest beginning of `prompt` in any slot."""
        return max(common(slot.cells, prompt) for slot in self._slots)

    def holds(self, prompt: Sequence[Cell]) -> bool:
        """Whether some slot begins with all of `prompt`. If so, that slot counts as used."""
        slot = next((s for s in self._slots if common(s.cells, prompt) == len(prompt)), None)
        if slot is not None:
            self._use(slot)
        return slot is not None

    def holds_pictures(self, prompt: Sequence[Cell]) -> bool:
        """Whether the slot with the longest beginning of `prompt` has all pictures of it."""
        return all(isinstance(cell, int) for cell in prompt[self.longest(prompt) :])

    def take(
        self, key: str, prompt: Sequence[Cell], *, evict: bool = True, saved: KvState | None = None
    ) -> Slot | None:
        """Take a free slot for `prompt` and mark it busy. The slot then holds the longest beginning of `prompt` found
        in any slot and in `saved`, and nothing else. None if all slots are busy or, without `evict`, if another
        conversation would lose its cells.

        Order of preference: the conversation's own slot, an empty one, one whose whole content is a beginning of the
        prompt (nothing is lost), the least recently used one. A longer beginning in another slot is shared, not read
        again, so a second conversation about a picture reuses the first one's cache."""
        free = [slot for slot in self._slots if not slot.busy]
        if not free:
            return None

        def preference(slot: Slot) -> tuple[bool, bool, bool, int, int]:
            same = common(slot.cells, prompt)
            own, empty, swallowed = bool(key) and slot.key == key, not slot.cells, same == len(slot.cells)
            return own, empty and not own, swallowed, same if own or swallowed else 0, -slot.used

        slot = max(free, key=preference)
        own, empty, swallowed, *_ = preference(slot)
        if not (evict or own or empty or swallowed):
            return None
        if slot.unsaved and slot.key not in ("", key):
            self._save([slot])
        if saved is not None and common(saved.cells, prompt) > self.longest(prompt):
            self._restore(slot, saved)
        # Of several with the same beginning the shortest: a context may have to copy all that the other one holds.
        fullest = max(self._slots, key=lambda other: (common(other.cells, prompt), -len(other.cells)))
        same, most = common(slot.cells, prompt), common(fullest.cells, prompt)
        if most > same:
            self.cut(slot, 0)
            self._memory.share(fullest.sequence, slot.sequence, most)
            slot.cells = list(prompt[:most])
        else:
            self.cut(slot, same)
        self._use(slot)
        slot.unsaved = slot.unsaved and slot.key == key
        slot.key, slot.busy = key, True
        return slot

    def _restore(self, slot: Slot, saved: KvState) -> None:
        """Put `saved` into `slot` in place of its cells. If that is impossible, the slot is empty."""
        self.cut(slot, 0)
        if self._memory.restore(slot.sequence, saved.data):
            slot.cells = list(saved.cells)

    def _use(self, slot: Slot) -> None:
        self._clock += 1
        slot.used = self._clock

    def cut(self, slot: Slot, length: int) -> None:
        """Keep only the first `length` cells of `slot`."""
        if length < len(slot.cells):
            self._memory.remove(slot.sequence, length)
            del slot.cells[length:]
