"""The hint about small print: shown if a person can read what the model cannot, and only then."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from impchat import paths
from impchat.images.detail import loses_small_print


def page(
    capitals: float, size: tuple[int, int] = (1200, 1200), paper: str = "white", ink: str = "black"
) -> Image.Image:
    """Lines of text; `capitals`: the height of capital letters in pixels of a model's input of 196 pixels."""
    picture = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(picture)
    height = capitals * max(size) / 196
    font = ImageFont.load_default(height / 0.72)
    for line in range(round(0.8 * size[1] / (2 * height))):
        pen.text((60, (1 + 2 * line) * height), "Invoice 48.50 due in March, total " * 9, fill=ink, font=font)
    return picture


def stored(picture: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(("paper", "ink"), [("white", "black"), ("#202428", "#e0e0e0"), ("#e8f0d8", "navy")])
def test_small_print_is_noticed_on_any_paper(paper: str, ink: str) -> None:
    assert loses_small_print(stored(page(5, paper=paper, ink=ink)), 196)


def test_a_photograph_of_print_is_noticed() -> None:
    paper = page(6, paper="#d8d4c8", ink="#282828").rotate(4, Image.Resampling.BICUBIC, fillcolor="#999999")
    noise = Image.merge("RGB", [Image.effect_noise(paper.size, 40)] * 3)
    assert loses_small_print(stored(Image.blend(paper, noise, 0.1), "JPEG"), 196)


def test_large_print_is_not_lost_and_a_larger_input_keeps_more() -> None:
    assert not loses_small_print(stored(page(24)), 196)
    assert loses_small_print(stored(page(6)), 196)
    assert not loses_small_print(stored(page(6)), 768)


def test_a_padded_picture_loses_print_that_a_squeezed_one_keeps() -> None:
    low = page(5, (1200, 300))
    assert loses_small_print(stored(low), 196, "pad")
    assert not loses_small_print(stored(page(14, (1200, 300))), 196, "pad")


@pytest.mark.parametrize(
    "picture",
    [
        page(5).filter(ImageFilter.GaussianBlur(12)),  # nobody can read it
        Image.merge("RGB", [Image.effect_noise((900, 600), 90)] * 3),
        Image.new("RGB", (3000, 2000), "white"),
        Image.new("RGB", (1, 900), "white"),
        page(5, (150, 150)),  # the picture is smaller than the input
    ],
    ids=["blurred", "noise", "blank", "thin", "small"],
)
def test_pictures_without_readable_print_get_no_hint(picture: Image.Image) -> None:
    assert not loses_small_print(stored(picture), 196)


def test_the_sample_pictures_get_no_hint() -> None:
    assert [path.name for path in paths.samples(demo=True) if loses_small_print(path.read_bytes(), 196)] == []
