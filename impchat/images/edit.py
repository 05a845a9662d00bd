"""Edit a picture before it is sent: rotate, crop and mark it, cut out a part to ask about, preview it as the model
sees it.

In: the bytes of a picture, and edits as values or as JSON from a front end. Out: the bytes of a new picture in the same
format, as input for `images.prepare`, and the legend of its marks.
This file does not know conversations or front ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import dropwhile

from impchat import images, settings
from impchat.errors import ImageError
from impchat.images import Aspect, marks
from impchat.images.boxes import Box
from impchat.images.marks import Arrow, BoxMark, Line, Mark, Point


@dataclass(frozen=True, slots=True)
class Rotate:
    """Rotate clockwise by `quarters` x 90 degrees."""

    quarters: int


@dataclass(frozen=True, slots=True)
class Crop:
    """Keep only `box`."""

    box: Box


Edit = Rotate | Crop | Mark


def read(value: object) -> tuple[Edit, ...]:
    """The edits in decoded JSON: a list of objects with one key each, which are applied in order.

        {"rotate": 1}                       clockwise, in quarters of a full turn, -3 to 3
        {"crop": [left, top, right, bottom]}
        {"box": [left, top, right, bottom]}
        {"arrow": [x, y, x, y]}             from, to
        {"line": [[x, y], [x, y], ...]}     two or more points

    Coordinates are fractions, 0 to 1, of the picture after all earlier rotations and crops. Marks (the last three) are
    numbered from 1 in their order, and no rotation or crop may follow a mark.
    Raises ImageError "edit.invalid", "edit.too_many_marks"."""
    if not isinstance(value, list) or len(value) > settings.EDITS:
        raise ImageError("edit.invalid", detail=f"a list of at most {settings.EDITS}")
    edits = tuple(_read_one(item) for item in value)
    count = len(marks_of(edits))
    if count > marks.MARKS:
        raise ImageError("edit.too_many_marks", count=count, limit=marks.MARKS)
    if any(isinstance(edit, Rotate | Crop) for edit in dropwhile(lambda e: isinstance(e, Rotate | Crop), edits)):
        raise ImageError("edit.invalid", detail="rotate and crop before marking")
    return edits


def marks_of(edits: Sequence[Edit]) -> tuple[Mark, ...]:
    """The marks among `edits`, in order: number 1 is the first."""
    return tuple(edit for edit in edits if not isinstance(edit, Rotate | Crop))


def legend(edits: Sequence[Edit], language: str) -> str:
    """The sentence that names the marks, to be put before the question; "" if there are none."""
    return marks.legend(marks_of(edits), language)


def apply(data: bytes, edits: Sequence[Edit]) -> bytes:
    """The picture in `data` with all `edits` applied, encoded once. Raises ImageError as `images.prepare`."""
    import PIL.Image

    turns = PIL.Image.Transpose
    pixels = images.decode(data)
    for edit in edits:
        match edit:
            case Rotate(quarters):
                how = (None, turns.ROTATE_270, turns.ROTATE_180, turns.ROTATE_90)[quarters % 4]
                pixels = pixels if how is None else pixels.transpose(how)
            case Crop(box):
                pixels = pixels.crop(box.pixels(*pixels.size))
    if drawn := marks_of(edits):
        pixels = marks.draw(pixels, drawn)
    return images.encode(pixels, _kind(data))


def turn(data: bytes, quarters: int) -> bytes:
    """Rotate the picture clockwise by `quarters` x 90 degrees. Raises ImageError as `images.prepare`."""
    return apply(data, [Rotate(quarters)])


def cut(data: bytes, part: Box) -> bytes:
    """Crop the picture to exactly `part`. Raises ImageError as `images.prepare`."""
    return apply(data, [Crop(part)])


def part(data: bytes, box: Box) -> bytes:
    """The part of the picture to ask about when a person has drawn `box` around something: `box` with a margin, so that
    the thing is not cut off, and at most twice as wide as high or the reverse as far as the picture allows, because a
    model squeezes its input into a square. Raises ImageError as `images.prepare`."""
    pixels = images.decode(data)
    return images.encode(pixels.crop(_around(box, *pixels.size)), _kind(data))


def seen(data: bytes, size: int, aspect: Aspect) -> bytes:
    """The picture as a model with an input of `size` pixels sees it, as PNG. Raises ImageError as `images.prepare`."""
    import numpy as np
    import PIL.Image

    half = (0.5, 0.5, 0.5)  # maps values to -1..1
    values = images.model_input(data, size, aspect, half, half)[0].transpose(1, 2, 0)
    levels = np.clip((values + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)
    return images.encode(PIL.Image.fromarray(levels), "PNG")


_PART_MARGIN = 0.1  # on each side, as a fraction of the longer side of the box
_PART_LEAST = 28  # pixels: two patches of the vision encoder
_PART_RATIO = 2


def _around(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """`part`'s rectangle in pixels of a picture of this size."""
    left, top, right, bottom = box.pixels(width, height)
    margin = 2 * _PART_MARGIN * max(right - left, bottom - top)
    sides = [max(_PART_LEAST, right - left + margin), max(_PART_LEAST, bottom - top + margin)]
    sides = [max(side, max(sides) / _PART_RATIO) for side in sides]
    (x1, x2), (y1, y2) = (
        _within((low + high) / 2, side, most)
        for low, high, side, most in ((left, right, sides[0], width), (top, bottom, sides[1], height))
    )
    return x1, y1, x2, y2


def _within(centre: float, length: float, most: int) -> tuple[int, int]:
    """The interval of this length around `centre`, moved into 0 to `most`."""
    length = min(round(length), most)
    low = min(max(round(centre - length / 2), 0), most - length)
    return int(low), int(low + length)


def _kind(data: bytes) -> str:
    """The format to encode in: drawings stay lossless."""
    return "PNG" if data.startswith(b"\x89PNG") else "JPEG"


def _read_one(item: object) -> Edit:
    if not isinstance(item, dict) or len(item) != 1:
        raise ImageError("edit.invalid", detail="one change each")
    name, value = next(iter(item.items()))
    if name not in _READERS:
        raise ImageError("edit.invalid", detail=str(name)[:20])
    edit = _READERS[name](value)
    if edit is None:
        raise ImageError("edit.invalid", detail=name)
    return edit


def _rotate(value: object) -> Rotate | None:
    return Rotate(value) if isinstance(value, int) and not isinstance(value, bool) and -3 <= value <= 3 else None


def _fractions(value: object, count: int) -> tuple[float, ...] | None:
    """`count` numbers from 0 to 1; None if `value` is anything else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    if any(isinstance(n, bool) or not isinstance(n, int | float) or not 0 <= n <= 1 for n in value):
        return None  # NaN is in no range
    return tuple(map(float, value))


def _box(value: object) -> Box | None:
    sides = _fractions(value, 4)
    return Box(*sides) if sides and sides[0] < sides[2] and sides[1] < sides[3] else None


def _crop(value: object) -> Crop | None:
    box = _box(value)
    return Crop(box) if box else None


def _box_mark(value: object) -> BoxMark | None:
    box = _box(value)
    return BoxMark(box) if box else None


def _arrow(value: object) -> Arrow | None:
    ends = _fractions(value, 4)
    return Arrow(ends[:2], ends[2:]) if ends and ends[:2] != ends[2:] else None  # type: ignore[arg-type]


def _line(value: object) -> Line | None:
    if not isinstance(value, list) or not 2 <= len(value) <= settings.STROKE_POINTS:
        return None
    points: list[Point] = []
    for item in value:
        point = _fractions(item, 2)
        if point is None:
            return None
        points.append((point[0], point[1]))
    return Line(tuple(points))


_READERS: dict[str, Callable[[object], Edit | None]] = {
    "rotate": _rotate,
    "crop": _crop,
    "box": _box_mark,
    "arrow": _arrow,
    "line": _line,
}
