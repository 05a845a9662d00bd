"""Boxes named in an answer, and drawing them on its picture.

In: the text of an answer, in which a box is four fractions `[left, top, right, bottom]` of the picture's width and
height, as Imp was trained to write them; the picture's stored bytes. Out: the boxes, and the picture with frames.
This file does not know messages or front ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from impchat import images

_FRACTION = r"\s*([01](?:\.\d+)?|\.\d+)\s*"
_BOX = re.compile(rf"\[{_FRACTION},{_FRACTION},{_FRACTION},{_FRACTION}\]")
COLOURS = ("#e2592f", "#2f7de2", "#1f9d55", "#a03fd0")  # used in turn
_LINE = 1 / 120  # line width as a fraction of the picture's longest side
_THIN = 16  # maximum ratio of the sides of a drawn picture
_LEAST = 96  # minimum length of the longest side, in pixels


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture, in fractions of its width and height."""

    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in pixels of a picture of this size; at least one pixel wide and high."""
        left, top = min(round(self.left * width), width - 1), min(round(self.top * height), height - 1)
        return left, top, max(round(self.right * width), left + 1), max(round(self.bottom * height), top + 1)

    def contains(self, other: Box) -> bool:
        """Whether all of `other` is within this box."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom

    def overlap(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        across = max(0.0, min(self.right, other.right) - max(self.left, other.left))
        down = max(0.0, min(self.bottom, other.bottom) - max(self.top, other.top))
        area = (self.right - self.left) * (self.bottom - self.top)
        area += (other.right - other.left) * (other.bottom - other.top) - across * down
        return across * down / area if area else 0.0


def boxes(text: str) -> list[Box]:
    """The boxes in `text`, in order and without duplicates; boxes without area or outside the picture are ignored."""
    found = (Box(*map(float, match.groups())) for match in _BOX.finditer(text))
    return list(dict.fromkeys(b for b in found if 0 <= b.left < b.right <= 1 and 0 <= b.top < b.bottom <= 1))


def replace(text: str, change: Callable[[Box], Box]) -> str:
    """`text` with each box that `boxes` finds replaced by what `change` returns, in hundredths as Imp writes them."""

    def changed(match: re.Match[str]) -> str:
        if not (found := boxes(match[0])):
            return match[0]
        new = change(found[0])
        return f"[{new.left:.2f}, {new.top:.2f}, {new.right:.2f}, {new.bottom:.2f}]"

    return _BOX.sub(changed, text)


def draw(data: bytes, found: Sequence[Box]) -> bytes:
    """The picture in `data` with a frame around each box, as JPEG. A tiny or very thin picture is enlarged or stretched
    first, because frames would cover it. Raises ImageError as `images.prepare`."""
    from PIL import ImageDraw

    picture = images.decode(data)
    longest = max(_LEAST, *picture.size)
    sides = (max(round(side * longest / max(picture.size)), longest // _THIN, _LEAST // 4) for side in picture.size)
    picture = picture.resize((next(sides), next(sides)))  # usually its own size, which changes nothing
    pen = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) * _LINE))
    for number, box in enumerate(found):
        left, top, right, bottom = box.pixels(*picture.size)
        # The frame is around the box, so that it covers nothing in it; the white rim is visible on any background.
        for far, colour in ((2 * line, "white"), (line, COLOURS[number % len(COLOURS)])):
            around = (
                max(left - far, 0), max(top - far, 0),
                min(right - 1 + far, picture.width - 1), min(bottom - 1 + far, picture.height - 1),
            )  # fmt: skip
            pen.rounded_rectangle(around, radius=far + line, outline=colour, width=far)
    return images.encode(picture, "JPEG")
