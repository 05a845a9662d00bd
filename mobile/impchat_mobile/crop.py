"""The crop frame that the user drags on a picture.

In: positions and movements of a finger, as fractions of the picture. Out: a `Box`. This file does not know Flet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from impchat.images.boxes import Box

WHOLE = Box(0, 0, 1, 1)
_MIN_SIDE = 0.05  # minimum width and height, as fractions of the picture
_GRAB_DISTANCE = 0.09  # maximum distance between a finger and the edge that it grabs


@dataclass(frozen=True, slots=True)
class Frame:
    """The chosen part of a picture. `held`: the edges that a finger holds, of "l", "t", "r" and "b"; "ltrb": the whole
    frame; "": none."""

    box: Box = WHOLE
    held: str = ""

    def grab(self, x: float, y: float) -> Frame:
        """The frame after a finger went down at (x, y). It grabs a near edge or corner, or inside, the whole frame."""
        box = self.box
        inside = (
            box.left - _GRAB_DISTANCE <= x <= box.right + _GRAB_DISTANCE
            and box.top - _GRAB_DISTANCE <= y <= box.bottom + _GRAB_DISTANCE
        )
        if not inside:
            return replace(self, held="")
        held = "l" if abs(x - box.left) < _GRAB_DISTANCE else "r" if abs(x - box.right) < _GRAB_DISTANCE else ""
        held += "t" if abs(y - box.top) < _GRAB_DISTANCE else "b" if abs(y - box.bottom) < _GRAB_DISTANCE else ""
        return replace(self, held=held or "ltrb")

    def moved(self, dx: float, dy: float) -> Frame:
        """The whole frame moved by (dx, dy), but not beyond the picture."""
        return replace(replace(self, held="ltrb").drag(dx, dy), held="")

    def scaled(self, by: float) -> Frame:
        """The frame scaled by `by` around its centre, but not beyond the picture."""
        box = self.box
        width, height = (min(max(side * by, _MIN_SIDE), 1) for side in (box.right - box.left, box.bottom - box.top))
        left = min(max((box.left + box.right - width) / 2, 0), 1 - width)
        top = min(max((box.top + box.bottom - height) / 2, 0), 1 - height)
        return Frame(Box(left, top, left + width, top + height))

    def drag(self, dx: float, dy: float) -> Frame:
        """The frame after the finger moved by (dx, dy): the held edges move."""
        box = self.box
        if self.held == "ltrb":
            dx = min(max(dx, -box.left), 1 - box.right)
            dy = min(max(dy, -box.top), 1 - box.bottom)
            return replace(self, box=Box(box.left + dx, box.top + dy, box.right + dx, box.bottom + dy))
        left = min(max(box.left + dx, 0), box.right - _MIN_SIDE) if "l" in self.held else box.left
        right = max(min(box.right + dx, 1), box.left + _MIN_SIDE) if "r" in self.held else box.right
        top = min(max(box.top + dy, 0), box.bottom - _MIN_SIDE) if "t" in self.held else box.top
        bottom = max(min(box.bottom + dy, 1), box.top + _MIN_SIDE) if "b" in self.held else box.bottom
        return replace(self, box=Box(left, top, right, bottom))
