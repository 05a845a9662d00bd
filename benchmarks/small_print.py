"""When the hint about small print appears: `python -m benchmarks.small_print`.

In: nothing. Out: on standard output, Markdown tables: for lines of text of several heights, as a screenshot and as a
photograph of paper, the share of pictures with a hint; the same for pictures without text. Heights are those of capital
letters, in pixels of the model's input, 196 x 196.
"""

from __future__ import annotations

import io
from random import Random

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from impchat.images.detail import loses_small_print
from tools.demo_model import scenes

INPUT = 196
HEIGHTS = (3, 4, 5, 6, 8, 10, 12, 16, 24)
SIZES = ((1024, 768), (768, 1024), (1600, 900), (2048, 1536), (1200, 1200))
PAPERS = ((250, 248, 240), (205, 215, 190), (40, 44, 52))
WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "invoice",
    "total",
    "48.50",
    "due",
    "March",
    "1234567890",
    "Street",
)
CAPITAL = 0.72  # height of capital letters relative to the size of Pillow's own font


def screenshot(rng: Random, size: tuple[int, int], height: float, lines: int = 99) -> Image.Image:
    """Lines of text whose capital letters are `height` pixels high in the model's input."""
    paper = rng.choice(PAPERS)
    ink = (230, 230, 225) if max(paper) < 128 else (30, 30, 35)
    picture = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(picture)
    capital = height * size[1] / INPUT
    font = ImageFont.load_default(capital / CAPITAL)
    y = capital
    while y < size[1] - 2 * capital and lines:
        line = ""
        while pen.textlength(line, font=font) < size[0] * 0.7:
            line += rng.choice(WORDS) + " "
        pen.text((size[0] * 0.08, y), line, fill=ink, font=font)
        y += 1.9 * capital
        lines -= 1
    return picture


def photographed(rng: Random, picture: Image.Image) -> Image.Image:
    """The picture as a photograph of paper: uneven light, a slight rotation, blur, noise and JPEG."""
    size = picture.size
    light = Image.linear_gradient("L").resize(size)
    picture = Image.blend(picture, Image.merge("RGB", [light] * 3), 0.2)
    picture = picture.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC, fillcolor=(150, 150, 145))
    picture = picture.filter(ImageFilter.GaussianBlur(0.8))
    return Image.blend(picture, Image.merge("RGB", [Image.effect_noise(size, 40)] * 3), 0.12)


def hints(pictures: list[Image.Image], kind: str) -> str:
    """The share of `pictures`, encoded as `kind`, with a hint."""
    count = 0
    for picture in pictures:
        out = io.BytesIO()
        picture.save(out, kind, **({"quality": 75} if kind == "JPEG" else {}))
        count += loses_small_print(out.getvalue(), INPUT)
    return f"{count / len(pictures):.0%}"


def main() -> None:
    """Print both tables."""
    print("| capitals, pixels at 196 | screenshot, full of text | one line of text | photograph of text |")
    print("|---|---|---|---|")
    for height in HEIGHTS:
        full, one, photo = [], [], []
        for number, size in enumerate(SIZES * 2):
            rng = Random(f"print {height} {number}")
            full.append(screenshot(rng, size, height))
            one.append(screenshot(rng, size, height, lines=1))
            photo.append(photographed(rng, screenshot(rng, size, height)))
        print(f"| {height} | {hints(full, 'PNG')} | {hints(one, 'PNG')} | {hints(photo, 'JPEG')} |")
    print("\n| pictures without text | hint |\n|---|---|")
    for style in (scenes.TRAIN, scenes.HELD_OUT):
        photos = [scenes.photo(Random(f"photo {i}"), style).picture for i in range(100)]
        drawings = [scenes.drawn(Random(f"drawn {i}"), style).picture for i in range(100)]
        print(f"| photo-like, {style.name} style | {hints(photos, 'JPEG')} |")
        print(f"| drawn shapes, {style.name} style | {hints(drawings, 'PNG')} |")


if __name__ == "__main__":
    main()
