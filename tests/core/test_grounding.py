"""Boxes in an answer: which are found, and where they are drawn."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from impchat import images
from impchat.images.boxes import Box, boxes, draw
from impchat.images.edit import cut, seen, turn


def picture(width: int = 200, height: int = 100) -> bytes:
    """A picture whose left half is black and whose right half is white."""
    pixels = Image.new("RGB", (width, height), "black")
    pixels.paste("white", (width // 2, 0, width, height))
    out = io.BytesIO()
    pixels.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[0.08, 0.08, 0.36, 0.40]", [Box(0.08, 0.08, 0.36, 0.4)]),
        ("It is at [0,0,1,1].", [Box(0, 0, 1, 1)]),
        ("A [.1, .2, .3, .4] and [0.5, 0.5, 1.0, 1.0], again [0.1, 0.2, 0.3, 0.4].",
         [Box(0.1, 0.2, 0.3, 0.4), Box(0.5, 0.5, 1, 1)]),
        ("在[0.10, 0.20, 0.30, 0.40]处", [Box(0.1, 0.2, 0.3, 0.4)]),
        ("[0.5, 0.5, 0.5, 0.9] has no width", []),
        ("[0.5, 0.5, 0.4, 0.9] ends before it begins", []),
        ("[0.1, 0.2, 1.3, 0.4] lies outside", []),
        ("[10, 20, 30, 40] are no fractions", []),
        ("[0.1, 0.2, 0.3] has three sides", []),
        ("[1] a footnote", []),
    ],
)  # fmt: skip
def test_a_box_is_four_fractions_with_an_area(text: str, found: list[Box]) -> None:
    assert boxes(text) == found


def test_a_frame_is_drawn_around_its_box_and_nowhere_else() -> None:
    drawn = images.decode(draw(picture(), [Box(0.1, 0.2, 0.4, 0.8)]))
    red, _, blue = drawn.getpixel((19, 50))  # just outside the left edge
    assert red > 150 > blue + 60
    assert max(drawn.getpixel((24, 50))) < 40, "the content of the box is not covered"
    assert max(drawn.getpixel((50, 50))) < 20, "the inside is unchanged"
    assert min(drawn.getpixel((150, 50))) > 235, "the outside is unchanged"


def test_a_box_at_the_very_edge_is_drawn() -> None:
    assert images.decode(draw(picture(), [Box(0, 0, 1, 1), Box(0.999, 0.999, 1, 1)])).size == (200, 100)


@pytest.mark.parametrize("size", [(1, 2048), (2048, 1), (1, 1), (2, 3), (1, 40)])
def test_frames_do_not_cover_the_thinnest_and_smallest_pictures(size: tuple[int, int]) -> None:
    out = io.BytesIO()
    Image.new("RGB", size, (20, 60, 20)).save(out, "PNG")
    drawn = images.decode(draw(out.getvalue(), [Box(0.1, 0.2, 0.9, 0.8)]))
    inside = drawn.getpixel((drawn.width // 2, drawn.height // 2))
    assert max(abs(a - b) for a, b in zip(inside, (20, 60, 20), strict=True)) < 20
    assert any(red > 150 > blue + 60 for _, (red, _, blue) in drawn.getcolors(drawn.width * drawn.height))


def test_a_picture_is_turned_clockwise() -> None:
    turned = images.decode(turn(picture(), 1))
    assert turned.size == (100, 200)
    assert max(turned.getpixel((50, 20))) < 20, "the left side is on top"
    assert images.decode(turn(picture(), 4)).tobytes() == images.decode(picture()).tobytes()


def test_a_part_is_cut_out() -> None:
    part = images.decode(cut(picture(), Box(0.5, 0, 1, 1)))
    assert part.size == (100, 100)
    assert min(part.getpixel((2, 2))) == 255


def test_what_the_model_sees_is_its_input_and_nothing_else() -> None:
    squeezed = images.decode(seen(picture(), 196, "square"))
    assert squeezed.size == (196, 196)
    assert max(squeezed.getpixel((10, 5))) == 0
    padded = images.decode(seen(picture(), 196, "pad"))
    assert padded.getpixel((10, 5)) == (127, 127, 127), "the mean colour above a wide picture"
