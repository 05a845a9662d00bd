"""What the KV cache holds: which conversation is in which slot, and how much of a new prompt is there already.

In: prompts as cells, one for each position of the cache. Out: a slot whose cache begins as the prompt does, kept up to
the first difference. This file does not know how anything is decoded, nor who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from impchat.messages import Picture
from impchat.prompts import Piece

Cell = int | tuple[str, int]
"""What a position of the cache was read from: a token id, or the n-th embedding of a picture, named by its hash."""


class Memory(Protocol):
    """What is asked of the thing that holds the cache itself (`llama.Context`)."""

    def remove(self, sequence: int, start: int) -> None: ...

    def share(self, source: int, target: int, end: int) -> None: ...


def cells(pieces: Iterable[Piece], picture_tokens: int) -> list[Cell]:
    """The cells of a rendered prompt; each picture fills `picture_tokens` of them."""
    row: list[Cell] = []
    for piece in pieces:
        if isinstance(piece, Picture):
            row += [(piece.sha256, n) for n in range(picture_tokens)]
        else:
            row += piece.ids
    return row


def common(a: Sequence[Cell], b: Sequence[Cell]) -> int:
    """How many cells from the first on are equal."""
    shorter = min(len(a), len(b))
    return next((n for n in range(shorter) if a[n] != b[n]), shorter)


@dataclass(slots=True, eq=False)
class Slot:
    """A sequence of the KV cache. `cells` says what it holds, always exactly."""

    sequence: int
    cells: list[Cell] = field(default_factory=list)
    key: str = ""  # of the prompt that was read last
    busy: bool = False  # a prompt is being read or answered in it
    used: int = 0  # when it was taken last; larger is later


class Slots:
    """The slots of one cache. Belongs to the thread that decodes."""

    def __init__(self, memory: Memory, count: int) -> None:
        self._memory = memory
        self._slots = [Slot(n) for n in range(count)]
        self._clock = 0

    def holds(self, prompt: Sequence[Cell]) -> bool:
        """Whether some slot begins with the whole of `prompt`; asking counts as a use of it."""
        slot = next((s for s in self._slots if common(s.cells, prompt) == len(prompt)), None)
        if slot is not None:
            self._use(slot)
        return slot is not None

    def take(self, key: str, prompt: Sequence[Cell]) -> Slot | None:
        """A free slot for `prompt`, busy from now on, holding as much of its beginning as there is anywhere in the
        cache and nothing else; None where all slots are busy.

        The conversation's own slot comes first, then an empty one, then one whose whole content is the beginning of
        the prompt (nothing is lost), then the one that was not used for longest. A beginning that another slot holds
        is shared, not read again: a second conversation about a picture starts where the first one stands."""
        free = [slot for slot in self._slots if not slot.busy]
        if not free:
            return None

        def preference(slot: Slot) -> tuple[bool, bool, bool, int, int]:
            same = common(slot.cells, prompt)
            own, empty, swallowed = bool(key) and slot.key == key, not slot.cells, same == len(slot.cells)
            return own, empty and not own, swallowed, same if own or swallowed else 0, -slot.used

        slot = max(free, key=preference)
        fullest = max(self._slots, key=lambda other: common(other.cells, prompt))
        same, most = common(slot.cells, prompt), common(fullest.cells, prompt)
        if most > same:
            self.cut(slot, 0)
            self._memory.share(fullest.sequence, slot.sequence, most)
            slot.cells = list(prompt[:most])
        else:
            self.cut(slot, same)
        self._use(slot)
        slot.key, slot.busy = key, True
        return slot

    def _use(self, slot: Slot) -> None:
        self._clock += 1
        slot.used = self._clock

    def cut(self, slot: Slot, length: int) -> None:
        """Keep the first `length` cells of `slot`."""
        if length < len(slot.cells):
            self._memory.remove(slot.sequence, length)
            del slot.cells[length:]
