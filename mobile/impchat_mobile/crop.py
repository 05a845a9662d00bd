"""The frame that a finger draws on a picture to choose a part of it.

In: where a finger goes down and moves, in fractions of the picture. Out: a `Box`. This file does not know Flet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from impchat.images.boxes import Box

WHOLE = Box(0, 0, 1, 1)
_LEAST = 0.05  # of the picture, both ways
_NEAR = 0.09  # how far from an edge a finger still takes hold of it


@dataclass(frozen=True, slots=True)
class Frame:
    """The chosen part, and which of its edges a finger holds: "l", "t", "r", "b", all four to move it, none."""

    box: Box = WHOLE
    held: str = ""

    def grab(self, x: float, y: float) -> Frame:
        """A finger goes down: on an edge or corner it takes hold of that, inside of the whole frame."""
        box = self.box
        inside = box.left - _NEAR <= x <= box.right + _NEAR and box.top - _NEAR <= y <= box.bottom + _NEAR
        if not inside:
            return replace(self, held="")
        held = "l" if abs(x - box.left) < _NEAR else "r" if abs(x - box.right) < _NEAR else ""
        held += "t" if abs(y - box.top) < _NEAR else "b" if abs(y - box.bottom) < _NEAR else ""
        return replace(self, held=held or "ltrb")

    def moved(self, dx: float, dy: float) -> Frame:
        """The whole frame elsewhere, as far as the picture goes."""
        return replace(replace(self, held="ltrb").drag(dx, dy), held="")

    def scaled(self, by: float) -> Frame:
        """A larger or smaller frame around the same middle, within the picture."""
        box = self.box
        width, height = (min(max(side * by, _LEAST), 1) for side in (box.right - box.left, box.bottom - box.top))
        left = min(max((box.left + box.right - width) / 2, 0), 1 - width)
        top = min(max((box.top + box.bottom - height) / 2, 0), 1 - height)
        return Frame(Box(left, top, left + width, top + height))

    def drag(self, dx: float, dy: float) -> Frame:
        """It moves by so much."""
        box = self.box
        if self.held == "ltrb":
            dx = min(max(dx, -box.left), 1 - box.right)
            dy = min(max(dy, -box.top), 1 - box.bottom)
            return replace(self, box=Box(box.left + dx, box.top + dy, box.right + dx, box.bottom + dy))
        left = min(max(box.left + dx, 0), box.right - _LEAST) if "l" in self.held else box.left
        right = max(min(box.right + dx, 1), box.left + _LEAST) if "r" in self.held else box.right
        top = min(max(box.top + dy, 0), box.bottom - _LEAST) if "t" in self.held else box.top
        bottom = max(min(box.bottom + dy, 1), box.top + _LEAST) if "b" in self.held else box.bottom
        return replace(self, box=Box(left, top, right, bottom))
