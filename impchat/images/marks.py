"""Marks drawn into a picture before it is sent (numbered boxes, arrows and lines), and the legend that names them.

In: decoded pixels and marks in fractions of their width and height. Out: pixels with the marks drawn, for the model as
much as for a person; the legend as a sentence for the question.
This file does not know how marks are entered or sent (`edit` reads them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from impchat.images.boxes import Box
from impchat.texts import say

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels
    from PIL.ImageDraw import ImageDraw as Pen

Point = tuple[float, float]
"""Fractions of the width and the height: (0, 0) is the top left corner, (1, 1) the bottom right one."""

# Mark number n has the nth colour, so that the legend identifies a mark by its colour as well as by its number.
COLOURS = {
    "red": "#ff2b2b",
    "yellow": "#ffe100",
    "blue": "#2f6bff",
    "green": "#16d13c",
    "pink": "#ff5ad6",
    "orange": "#ff9000",
    "cyan": "#1fe3ff",
    "white": "#ffffff",
}
MARKS = len(COLOURS)  # most marks of one picture
_DARK = "#111111"  # an outline around every mark: visible on light, and separates the colour from a similar one
# Fractions of the picture's longest side. A model with an input of 196 pixels gets lines of 2 pixels with an outline of
# 1 pixel, and numbers 10 pixels high.
_LINE = 2 / 196
_RIM = 1 / 196
_TAG = 16 / 196
_LEAST = 392  # pixels of the longest side; a smaller picture is enlarged, so that numbers stay legible


@dataclass(frozen=True, slots=True)
class BoxMark:
    """A frame around a part of the picture."""

    box: Box


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow that points from `start` to `end`."""

    start: Point
    end: Point


@dataclass(frozen=True, slots=True)
class Line:
    """A freehand line through two or more points."""

    points: tuple[Point, ...]


Mark = BoxMark | Arrow | Line


def legend(marks: Sequence[Mark], language: str) -> str:
    """A sentence that names the marks by number and colour, to be put before the question; "" without marks."""
    if not marks:
        return ""
    kinds = {BoxMark: "box", Arrow: "arrow", Line: "line"}
    named = [
        say(f"marks.{kinds[type(mark)]}", language, number=number, colour=say(f"marks.{colour}", language))
        for number, (mark, colour) in enumerate(zip(marks, COLOURS, strict=False), 1)
    ]
    return say("marks.legend", language, marks=say("marks.comma", language).join(named))


def draw(pixels: Pixels, marks: Sequence[Mark]) -> Pixels:
    """A copy of `pixels` (RGB) with the marks and their numbers drawn. Numbers are drawn last, next to each other where
    their marks meet. A picture smaller than 392 pixels is enlarged. At most `MARKS` marks."""
    from PIL import Image, ImageDraw

    assert len(marks) <= MARKS
    longest = max(_LEAST, *pixels.size)
    size = [max(1, round(side * longest / max(pixels.size))) for side in pixels.size]
    drawn = pixels.resize((size[0], size[1]), Image.Resampling.BICUBIC)  # usually its own size, which changes nothing
    pen = ImageDraw.Draw(drawn)
    line, rim = max(2, round(longest * _LINE)), max(1, round(longest * _RIM))
    for mark, colour in zip(marks, COLOURS.values(), strict=False):
        for shade, grown in ((_DARK, rim), (colour, 0)):
            match mark:
                case BoxMark(box):
                    _frame(pen, box.pixels(*drawn.size), shade, line, grown)
                case Arrow(start, end):
                    _arrow(pen, _at(start, drawn), _at(end, drawn), shade, line, grown)
                case Line(points):
                    _line(pen, [_at(point, drawn) for point in points], shade, line + 2 * grown)
    _numbers(pen, drawn, marks)
    return drawn


def _at(point: Point, pixels: Pixels) -> Point:
    return point[0] * (pixels.width - 1), point[1] * (pixels.height - 1)


def _frame(pen: Pen, box: tuple[int, int, int, int], colour: str, line: int, grown: int) -> None:
    """A frame whose inner edge is the box, moved inwards at the edges of the picture."""
    far = line + grown
    size = pen.im.size
    left, top = max(box[0] - far, -grown), max(box[1] - far, -grown)
    right, bottom = min(box[2] - 1 + far, size[0] - 1 + grown), min(box[3] - 1 + far, size[1] - 1 + grown)
    pen.rectangle((left, top, right, bottom), outline=colour, width=line + 2 * grown)


def _line(pen: Pen, points: Sequence[Point], colour: str, width: int) -> None:
    pen.line(points, fill=colour, width=width, joint="curve")
    for x, y in (points[0], points[-1]):  # round ends
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=colour)


def _arrow(pen: Pen, start: Point, end: Point, colour: str, line: int, grown: int) -> None:
    """A line and a filled head whose tip is `end`."""
    length = math.dist(start, end) or 1  # 0 in a picture one pixel wide
    along = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)
    head = 6 * line
    neck = (end[0] - along[0] * head, end[1] - along[1] * head)
    if length > head:
        _line(pen, (start, neck), colour, line + 2 * grown)
    half = 3 * line + grown * 1.6
    tip = (end[0] + along[0] * 2 * grown, end[1] + along[1] * 2 * grown)
    base = (neck[0] - along[0] * grown, neck[1] - along[1] * grown)
    side = (-along[1] * half, along[0] * half)
    pen.polygon([tip, (base[0] + side[0], base[1] + side[1]), (base[0] - side[0], base[1] - side[1])], fill=colour)


def _numbers(pen: Pen, pixels: Pixels, marks: Sequence[Mark]) -> None:
    """Draw the number of each mark on a tag of its colour, so that no tag covers another."""
    from PIL import ImageFont

    side = max(8, min(round(max(pixels.size) * _TAG), min(pixels.size) // 2))
    rim = max(1, round(max(pixels.size) * _RIM))
    font = ImageFont.load_default(side * 0.88)
    taken: list[tuple[float, float]] = []
    for number, (mark, (name, colour)) in enumerate(zip(marks, COLOURS.items(), strict=False), 1):
        places = [
            (min(max(x, 0), pixels.width - side), min(max(y, 0), pixels.height - side))
            for x, y in _places(mark, pixels, side)
        ]
        free = (p for p in places if all(abs(p[0] - x) >= side or abs(p[1] - y) >= side for x, y in taken))
        x, y = next(free, places[0])
        taken.append((x, y))
        pen.rectangle((x, y, x + side - 1, y + side - 1), fill=colour, outline=_DARK, width=rim)
        ink = "white" if name in ("red", "blue") else "black"
        pen.text((x + side / 2, y + side / 2), str(number), fill=ink, font=font, anchor="mm", stroke_width=side / 40)


def _places(mark: Mark, pixels: Pixels, side: int) -> Iterator[tuple[float, float]]:
    """Places (left, top) for the tag of a mark, the best first; those outside the picture are moved into it."""
    match mark:
        case BoxMark(box):  # outside the box, whose content stays visible, if there is room
            left, top, right, bottom = box.pixels(*pixels.size)
            around = [(left, top - side), (left, bottom), (left - side, top), (right, top), (right - side, top - side)]
            yield from sorted(around, key=lambda p: not (p[0] >= 0 and 0 <= p[1] <= pixels.height - side))
            yield left, top
            yield right - side, bottom - side
        case Arrow(start=start, end=end):
            (x, y), (to_x, to_y) = _at(start, pixels), _at(end, pixels)
            away = math.dist((x, y), (to_x, to_y)) or 1
            x, y = x - (to_x - x) / away * side / 2, y - (to_y - y) / away * side / 2
            yield from _near(x, y, side)
        case Line(points):
            yield from _near(*_at(points[0], pixels), side)
            yield from _near(*_at(points[-1], pixels), side)


def _near(x: float, y: float, side: int) -> Iterator[tuple[float, float]]:
    """Places (left, top) centred on a point and around it."""
    for across, down in ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)):
        yield x - side / 2 + across * side, y - side / 2 + down * side
