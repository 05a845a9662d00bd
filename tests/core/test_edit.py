"""Edits of a picture before it is sent: rotations, crops, marks and their legend, and the part to ask about."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from impchat import images
from impchat.errors import ImageError
from impchat.images import edit
from impchat.images.boxes import Box

RED, YELLOW = (255, 43, 43), (255, 225, 0)


def picture(size: tuple[int, int] = (800, 600), paper: str = "gray", kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, paper).save(out, kind)
    return out.getvalue()


def near(pixel: object, colour: tuple[int, int, int]) -> bool:
    assert isinstance(pixel, tuple)
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) < 60


def test_edits_are_applied_in_order_and_encoded_once() -> None:
    left_black = Image.new("RGB", (200, 100), "white")
    left_black.paste("black", (0, 0, 100, 100))
    out = io.BytesIO()
    left_black.save(out, "PNG")
    changed = images.decode(edit.apply(out.getvalue(), edit.read([{"rotate": 1}, {"crop": [0, 0, 1, 0.5]}])))
    assert changed.size == (100, 100)
    assert changed.getextrema() == ((0, 0),) * 3, "the left half is at the top after a rotation to the right"


def test_marks_are_drawn_where_they_are_put_and_survive_at_the_models_size() -> None:
    edits = edit.read([{"box": [0.25, 0.25, 0.75, 0.75]}, {"arrow": [0.1, 0.95, 0.1, 0.6]}])
    small = images.decode(edit.seen(edit.apply(picture((1600, 1200)), edits), 196, "square"))
    assert any(near(small.getpixel((x, 98)), RED) for x in range(44, 50)), "the left side of the box"
    assert any(near(small.getpixel((x, 98)), (17, 17, 17)) for x in range(43, 51)), "its dark outline"
    assert near(small.getpixel((98, 98)), (128, 128, 128)), "the content of the box is unchanged"
    assert any(near(small.getpixel((x, 150)), YELLOW) for x in range(16, 24)), "the shaft of the arrow"


@pytest.mark.parametrize("paper", ["white", "black", "red", "gray"])
def test_every_mark_is_visible_on_any_paper(paper: str) -> None:
    edits = edit.read([{"line": [[0.1, n / 10], [0.9, n / 10]]} for n in range(1, 9)])
    small = images.decode(edit.seen(edit.apply(picture(paper=paper), edits), 196, "square"))
    for n in range(1, 9):
        column = [small.getpixel((120, round(n * 19.6) + off)) for off in range(-3, 4)]
        assert len({tuple(v // 64 for v in pixel) for pixel in column}) > 1, n


def test_the_numbers_of_marks_differ_at_the_models_size() -> None:
    def tag(edits: list[object]) -> bytes:
        drawn = edit.apply(picture((1600, 1200)), edit.read(edits))
        return images.decode(edit.seen(drawn, 196, "square")).convert("L").point(lambda v: 255 * (v > 127)).tobytes()

    one = {"line": [[0.5, 0.5], [0.52, 0.5]]}
    assert tag([one]) != tag([{"line": [[0.05, 0.05], [0.06, 0.05]]}, one])


def test_a_jpeg_stays_one_and_marks_do_not_change_the_size_of_a_usual_picture() -> None:
    drawn = edit.apply(picture((640, 480), kind="JPEG"), edit.read([{"box": [0, 0, 1, 1]}]))
    prepared = images.prepare(drawn).image
    assert (prepared.mime, prepared.width, prepared.height) == ("image/jpeg", 640, 480)


@pytest.mark.parametrize("size", [(1, 1), (1, 2048), (2048, 3), (20, 14)])
def test_the_smallest_and_thinnest_pictures_can_be_marked(size: tuple[int, int]) -> None:
    every = [
        {"box": [0.1, 0.1, 0.9, 0.9]},
        {"arrow": [0, 0, 1, 0]},
        {"arrow": [1, 1, 0.9, 1]},
        {"line": [[0, 0], [1, 1]]},
    ]
    drawn = images.decode(edit.apply(picture(size), edit.read(every)))
    assert max(drawn.size) >= 392


def test_the_legend_names_each_mark_by_number_and_colour() -> None:
    edits = edit.read([{"rotate": 2}, {"box": [0, 0, 0.5, 0.5]}, {"arrow": [0, 0, 1, 1]}, {"line": [[0, 0], [1, 1]]}])
    assert edit.legend(edits, "en") == "Marked in the picture: box 1 (red), arrow 2 (yellow), line 3 (blue)."
    assert edit.legend(edits, "zh") == "图中的标记：1 号方框（红色）、2 号箭头（黄色）、3 号线条（蓝色）。"
    assert edit.legend(edit.read([{"rotate": 1}]), "en") == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        "rotate",
        [1],
        [{}],
        [{"rotate": 1, "crop": [0, 0, 1, 1]}],
        [{"blur": 3}],
        [{"rotate": True}],
        [{"rotate": 1.5}],
        [{"crop": [0.5, 0, 0.5, 1]}],
        [{"crop": [0, 0, 1]}],
        [{"box": [0, 0, 1, float("nan")]}],
        [{"box": [-0.1, 0, 1, 1]}],
        [{"box": ["0", 0, 1, 1]}],
        [{"arrow": [0.5, 0.5, 0.5, 0.5]}],
        [{"line": [[0, 0]]}],
        [{"line": [[0, 0], [1, 2]]}],
        [{"line": [[0, 0]] * 5000}],
        [{"box": [0, 0, 1, 1]}, {"rotate": 1}],
        [{"rotate": 1}] * 100,
    ],
)
def test_unusable_edits_are_refused_in_one_sentence(wrong: object) -> None:
    with pytest.raises(ImageError) as caught:
        edit.read(wrong)
    assert caught.value.code == "edit.invalid"
    assert caught.value.sentence("zh")


def test_more_marks_than_there_are_colours_are_refused() -> None:
    with pytest.raises(ImageError, match="9 marks are more than the 8"):
        edit.read([{"box": [0, 0, 1, 1]}] * 9)


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(0.4, 0.4, 0.6, 0.6), (240, 240)),  # a margin on each side
        (Box(0.1, 0.5, 0.9, 0.51), (960, 480)),  # a line is widened, so that it is not squeezed out of shape
        (Box(0, 0, 1, 1), (1000, 1000)),
        (Box(0.999, 0.999, 1, 1), (28, 28)),
        (Box(0, 0, 0.1, 0.1), (120, 120)),  # moved into the picture
    ],
)
def test_a_part_to_ask_about_has_a_margin_and_a_sensible_shape(box: Box, size: tuple[int, int]) -> None:
    assert images.decode(edit.part(picture((1000, 1000)), box)).size == size


def test_a_part_contains_what_was_in_the_box() -> None:
    pixels = Image.new("RGB", (500, 400), "white")
    pixels.paste("red", (400, 300, 500, 400))
    out = io.BytesIO()
    pixels.save(out, "PNG")
    part = images.decode(edit.part(out.getvalue(), Box(0.8, 0.75, 1, 1)))
    assert part.getpixel((part.width - 1, part.height - 1)) == (255, 0, 0)
    assert part.getpixel((0, 0)) == (255, 255, 255)
    assert part.size == (120, 120)
