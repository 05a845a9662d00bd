"""The pictures that the demo model is trained and evaluated on.

In: a seeded `random.Random` and a `Style` (training or held-out). Out: a `Scene`: an RGB Pillow picture, the things
drawn in it with their boxes, and a mask that maps each pixel to its thing.
This file does not know the questions about a picture (`questions`) or the model's input (`train`).
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from random import Random

from PIL import Image, ImageDraw, ImageFilter

SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart")

# The values of paint programs and CSS for each colour, so that users' own drawings look familiar to the model.
COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((255, 0, 0), (237, 28, 36), (220, 40, 40), (200, 20, 30), (244, 67, 54)),
    "orange": ((255, 127, 39), (255, 165, 0), (245, 140, 30), (255, 128, 0)),
    "yellow": ((255, 255, 0), (255, 242, 0), (240, 210, 40), (255, 221, 30)),
    "green": ((0, 128, 0), (34, 177, 76), (0, 255, 0), (40, 160, 60), (76, 175, 80)),
    "blue": ((0, 0, 255), (63, 72, 204), (50, 80, 220), (0, 120, 230), (33, 130, 243)),
    "purple": ((128, 0, 128), (163, 73, 164), (140, 60, 170), (120, 40, 200)),
    "pink": ((255, 192, 203), (255, 174, 201), (245, 140, 190), (255, 105, 180)),
    "brown": ((139, 69, 19), (165, 82, 42), (120, 72, 40), (150, 90, 50)),
    "gray": ((128, 128, 128), (127, 127, 127), (110, 110, 115), (150, 150, 150)),
    "black": ((0, 0, 0), (20, 20, 20), (35, 35, 38)),
}
CELLS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
MOST_COUNTED = 4  # larger numbers are "more than four"


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn thing: its kind (one of `SHAPES`), colour, tight box, and the ninth of the picture that contains it."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 as fractions of the picture
    cell: int  # index into CELLS


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture and its content. `things` is in reading order by cell; a photograph has none."""

    picture: Image.Image
    things: tuple[Thing, ...]
    mask: Image.Image  # mode "L", the picture's size: 0 for background, i + 1 for things[i]
    photo: bool = False


@dataclass(frozen=True, slots=True)
class Style:
    """What may vary between pictures. The held-out style shares no size, background, aspect or JPEG quality with the
    training style."""

    name: str
    sides: tuple[int, ...]  # candidate lengths of the longer side, in pixels
    aspects: tuple[float, ...]  # width / height
    qualities: tuple[int, ...]  # JPEG; half of the pictures are lossless
    papers: tuple[tuple[int, int, int], ...]
    patterns: tuple[str, ...]
    photos: tuple[str, ...]
    radii: tuple[float, float] | None = None  # of things, relative to the shorter side; None: as large as fits


TRAIN = Style(
    name="train",
    sides=(196, 210, 224, 256, 300, 360),
    aspects=(1.0, 1.0, 1.0, 1.0, 1.33, 0.75, 1.5, 0.67, 1.9, 0.55),
    qualities=(50, 65, 80, 95),
    papers=(
        (255, 255, 255),
        (255, 255, 255),
        (255, 255, 255),
        (240, 240, 230),
        (225, 235, 245),
        (200, 200, 200),
        (250, 235, 215),
        (210, 240, 215),
        (30, 30, 40),
        (60, 70, 60),
        (255, 250, 200),
        (220, 200, 230),
    ),
    patterns=("plain", "plain", "plain", "gradient", "noise", "lines"),
    photos=("clouds", "noise", "texture", "blobs", "landscape"),
)
# Undistorted, with things two to four patches wide: shapes are learned from these first.
EASY = replace(TRAIN, name="easy", sides=(196,), aspects=(1.0,), radii=(0.085, 0.15))
HELD_OUT = Style(
    name="held-out",
    sides=(240, 320, 480, 640, 900),
    aspects=(1.0, 1.25, 0.8, 1.6, 0.62, 1.78, 0.5625),
    qualities=(40, 72, 88),
    papers=(
        (255, 255, 255),
        (248, 248, 248),
        (235, 225, 205),
        (205, 225, 240),
        (245, 220, 225),
        (45, 45, 45),
        (20, 40, 60),
        (230, 245, 225),
    ),
    patterns=("plain", "plain", "radial", "dots", "grid"),
    photos=("plasma", "rings", "hills", "stones", "weave"),
)


def _distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """A rough perceptual distance of two RGB colours (the "redmean" formula), 0 to about 765."""
    mean = (a[0] + b[0]) / 2
    r, g, bl = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return math.sqrt((2 + mean / 256) * r * r + 4 * g * g + (2 + (255 - mean) / 256) * bl * bl)


def outline(kind: str, rng: Random) -> list[tuple[float, float]]:
    """The corners of a shape of radius 1 around (0, 0), rotated and slightly irregular like a drawing by hand."""
    turn = math.radians(rng.uniform(-12, 12))
    if kind == "circle":
        points = [(math.cos(a * math.pi / 20), math.sin(a * math.pi / 20)) for a in range(40)]
    elif kind == "square":
        points = [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    elif kind == "diamond":
        slim = rng.uniform(0.7, 1.0)
        points = [(0, -1), (slim, 0), (0, 1), (-slim, 0)]
        turn /= 2
    elif kind == "triangle":
        points = [(0, -1), (0.95, 0.75), (-0.95, 0.75)]
        turn += rng.choice((0, 0, 0, math.pi, math.radians(rng.uniform(-40, 40))))
    elif kind == "star":
        inner = rng.uniform(0.36, 0.5)
        points = []
        for i in range(10):
            radius = 1 if i % 2 == 0 else inner
            points.append((radius * math.sin(i * math.pi / 5), -radius * math.cos(i * math.pi / 5)))
        turn *= 1.5
    else:  # heart, from the usual parametric curve
        points = []
        for i in range(40):
            a = i * math.pi / 20
            y = 13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)
            points.append((math.sin(a) ** 3, -y / 16.5 - 0.08))
    if rng.random() < 0.3:  # a slightly unsteady hand
        wobble = rng.uniform(0.02, 0.06)
        phase, waves = rng.uniform(0, 6.28), rng.choice((2, 3))
        points = [
            (
                x * (1 + wobble * math.sin(phase + waves * math.atan2(y, x))),
                y * (1 + wobble * math.cos(phase + waves * math.atan2(y, x))),
            )
            for x, y in points
        ]
    cos, sin = math.cos(turn), math.sin(turn)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def _paper(rng: Random, style: Style, size: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    """The background: `colour` with one of the style's patterns, too faint to be taken for a thing."""
    pattern = rng.choice(style.patterns)
    paper = Image.new("RGB", size, colour)
    shade = tuple(max(0, min(255, c + rng.choice((-1, 1)) * rng.randint(8, 18))) for c in colour)
    draw = ImageDraw.Draw(paper)
    width, height = size
    if pattern == "gradient":
        ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize(size)
        paper = Image.composite(Image.new("RGB", size, shade), paper, ramp)
    elif pattern == "radial":
        paper = Image.composite(Image.new("RGB", size, shade), paper, Image.radial_gradient("L").resize(size))
    elif pattern == "noise":
        grain = Image.effect_noise((width // 2 + 1, height // 2 + 1), rng.randint(8, 25)).resize(size)
        paper = Image.blend(paper, Image.merge("RGB", (grain, grain, grain)), 0.12)
    elif pattern == "lines":
        step = rng.randint(12, 40)
        for at in range(step, height, step):
            draw.line((0, at, width, at), fill=shade)
    elif pattern == "grid":
        step = rng.randint(16, 48)
        for at in range(step, height, step):
            draw.line((0, at, width, at), fill=shade)
        for at in range(step, width, step):
            draw.line((at, 0, at, height), fill=shade)
    elif pattern == "dots":
        step = rng.randint(14, 30)
        for x in range(step, width, step):
            for y in range(step, height, step):
                draw.point((x, y), fill=shade)
    return paper


def _mixed(rng: Random, colour: str) -> tuple[int, int, int]:
    spread = 10 if colour != "black" else 6
    r, g, b = rng.choice(COLOURS[colour])
    return tuple(max(0, min(255, c + rng.randint(-spread, spread))) for c in (r, g, b))  # type: ignore[return-value]


def _places(
    rng: Random, size: tuple[int, int], count: int, radii: tuple[float, float] | None
) -> list[tuple[float, float, float]]:
    """`count` circles (x, y, radius in pixels) that do not touch each other, the border or the lines between ninths, so
    that the cell of a thing is unambiguous."""
    width, height = size
    short = min(width, height)
    # the model's input is square, so a thing must not become thin in it
    least = 0.062 * max(width, height)
    for _ in range(200):
        places: list[tuple[float, float, float]] = []
        for _ in range(count * 30):
            most = short * (0.34, 0.34, 0.24, 0.2, 0.17, 0.14, 0.13)[count]
            radius = rng.uniform(*(r * short for r in radii)) if radii else rng.uniform(least, max(least, most))
            if 2 * radius + 8 > short:
                continue
            x, y = rng.uniform(radius + 3, width - radius - 3), rng.uniform(radius + 3, height - radius - 3)
            near_line = any(
                abs(at / side - line) < 0.03 for at, side in ((x, width), (y, height)) for line in (1 / 3, 2 / 3)
            )
            if near_line or any(math.hypot(x - a, y - b) < (radius + r) * 1.06 + 3 for a, b, r in places):
                continue
            places.append((x, y, radius))
            if len(places) == count:
                return places
    return places


def _count(rng: Random) -> int:
    return rng.choices((0, 1, 2, 3, 4, 5, 6), (3, 24, 26, 22, 19, 3, 3))[0]


def drawn(rng: Random, style: Style = TRAIN, count: int | None = None) -> Scene:
    """A picture with `count` coloured things (None: random, mostly one to four)."""
    side, aspect = rng.choice(style.sides), rng.choice(style.aspects) * rng.uniform(0.97, 1.03)
    size = (side, max(96, round(side / aspect))) if aspect >= 1 else (max(96, round(side * aspect)), side)
    places = _places(rng, size, _count(rng) if count is None else count, style.radii)
    few = rng.sample(list(COLOURS), rng.choice((2, 3, 10)))  # so that colours and shapes repeat in a picture
    paper = rng.choice(style.papers) if rng.random() < 0.85 else tuple(rng.randint(175, 255) for _ in range(3))
    canvas = _paper(rng, style, size, paper)  # type: ignore[arg-type]
    factor = rng.choice((1, 1, 2))  # 2: smooth edges; 1: like a paint program without antialiasing
    things: list[tuple[Thing, Image.Image]] = []
    edge = rng.random()
    for x, y, radius in places:
        for _ in range(60):
            colour = rng.choice(few)
            mixed = _mixed(rng, colour)
            if _distance(mixed, paper) > 140:  # type: ignore[arg-type]
                break
            few = list(COLOURS)
        kind = rng.choice(SHAPES)
        big = (size[0] * factor, size[1] * factor)
        points = [((x + radius * u) * factor, (y + radius * v) * factor) for u, v in outline(kind, rng)]
        mask = Image.new("L", big, 0)
        ImageDraw.Draw(mask).polygon(points, fill=255)
        body = mask
        line = max(2, round(radius * factor * rng.uniform(0.12, 0.22)))
        if edge < 0.12 and radius > 0.1 * min(size):  # hollow: only the outline is coloured
            body = Image.new("L", big, 0)
            ImageDraw.Draw(body).line([*points, points[0], points[1]], fill=255, width=line, joint="curve")
            body = Image.composite(body, Image.new("L", big, 0), mask)
        elif edge > 0.85 and colour != "black":  # a dark outline
            rim = Image.new("L", big, 0)
            ImageDraw.Draw(rim).line([*points, points[0], points[1]], fill=255, width=max(1, line // 3), joint="curve")
            canvas.paste((25, 25, 25), mask=rim.resize(size, Image.Resampling.BOX) if factor > 1 else rim)
            rim_inside = Image.composite(Image.new("L", big, 0), mask, rim)
            body = rim_inside
        if factor > 1:
            mask, body = mask.resize(size, Image.Resampling.BOX), body.resize(size, Image.Resampling.BOX)
        canvas.paste(mixed, mask=body)
        x1, y1, x2, y2 = mask.getbbox() or (0, 0, 1, 1)
        box = (x1 / size[0], y1 / size[1], x2 / size[0], y2 / size[1])
        column, row = min(2, int((box[0] + box[2]) * 1.5)), min(2, int((box[1] + box[3]) * 1.5))
        things.append((Thing(kind, colour, box, row * 3 + column), mask))
    things.sort(key=lambda t: (t[0].cell, t[0].box[0] + t[0].box[2], t[0].box[1]))
    index = Image.new("L", size, 0)
    for i, (_, mask) in enumerate(things):
        index.paste(i + 1, mask=mask.point(lambda v: 255 if v > 127 else 0))
    return Scene(_jpeg(rng, style, canvas), tuple(t for t, _ in things), index)


def _jpeg(rng: Random, style: Style, picture: Image.Image) -> Image.Image:
    if rng.random() < 0.5:
        return picture
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=rng.choice(style.qualities))
    buffer.seek(0)
    with Image.open(buffer) as again:
        return again.convert("RGB")


def _cloud(rng: Random, size: tuple[int, int], octaves: int = 5, first: int = 3) -> Image.Image:
    """Grey fractal noise: random grids of doubling fineness, each half as strong, smoothly enlarged and added."""
    total = Image.new("L", size, 128)
    for i in range(octaves):
        cells = first * 2**i
        grid = Image.new("L", (cells + 1, cells + 1))
        grid.putdata([rng.randint(0, 255) for _ in range((cells + 1) ** 2)])
        total = Image.blend(total, grid.resize(size, Image.Resampling.BICUBIC), 0.55 if i == 0 else 0.6 / (i + 1))
    return total


def _tint(rng: Random, grey: Image.Image) -> Image.Image:
    """Map grey to a natural range between two or three random colours."""
    from PIL import ImageOps

    colours = [tuple(rng.randint(0, 255) for _ in range(3)) for _ in range(3)]
    return ImageOps.colorize(ImageOps.autocontrast(grey), colours[0], colours[2], mid=colours[1])


def photo(rng: Random, style: Style = TRAIN) -> Scene:
    """A picture that is not a drawing of shapes: textures, noise, landscapes, blurred blobs. It has no named things."""
    side, aspect = rng.choice(style.sides), rng.choice(style.aspects)
    size = (side, round(side / aspect)) if aspect >= 1 else (round(side * aspect), side)
    kind = rng.choice(style.photos)
    width, height = size
    if kind in ("clouds", "plasma"):
        channels = [_cloud(rng, size, 5, rng.choice((2, 3, 5) if kind == "clouds" else (4, 7))) for _ in range(3)]
        picture = Image.merge("RGB", channels) if rng.random() < 0.5 or kind == "plasma" else _tint(rng, channels[0])
    elif kind == "noise":
        picture = Image.merge("RGB", [Image.effect_noise(size, rng.randint(40, 140)) for _ in range(3)])
        picture = picture.filter(ImageFilter.GaussianBlur(rng.choice((0, 0.8, 2))))
    elif kind in ("texture", "weave"):
        step = rng.randint(3, 14)
        grey = _cloud(rng, size, 4)
        draw = ImageDraw.Draw(grey)
        for at in range(-height, width, step):
            lean = rng.randint(-6, 6) + (height if kind == "texture" else 0)
            draw.line((at, 0, at + lean, height), fill=rng.randint(0, 255), width=rng.randint(1, 3))
        if kind == "weave":
            for at in range(0, height, step):
                draw.line((0, at, width, at + rng.randint(-6, 6)), fill=rng.randint(0, 255), width=rng.randint(1, 3))
        picture = _tint(rng, grey.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5))))
    elif kind in ("blobs", "stones"):
        picture = _tint(rng, _cloud(rng, size))
        draw = ImageDraw.Draw(picture)
        for _ in range(rng.randint(15, 60) if kind == "blobs" else rng.randint(60, 140)):
            x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.02, 0.16) * side
            shade = tuple(rng.randint(0, 255) for _ in range(3))
            corners = [
                (x + r * rng.uniform(0.6, 1.2) * math.cos(a), y + r * rng.uniform(0.6, 1.2) * math.sin(a))
                for a in range(6)
            ]
            draw.polygon(corners, fill=shade) if kind == "stones" else draw.ellipse(
                (x - r, y - r * 0.7, x + r, y + r * 0.7), fill=shade
            )
        picture = Image.blend(
            picture.filter(ImageFilter.GaussianBlur(rng.uniform(1, 4))), _tint(rng, _cloud(rng, size, 6)), 0.3
        )
    elif kind == "rings":
        centre = (rng.uniform(0, 1), rng.uniform(0, 1))
        small = Image.new("L", (160, 160))
        waves = rng.uniform(30, 90)
        small.putdata(
            [
                int(127 + 127 * math.sin(waves * math.hypot(i % 160 / 160 - centre[0], i // 160 / 160 - centre[1])))
                for i in range(25600)
            ]
        )
        picture = _tint(rng, Image.blend(small.resize(size, Image.Resampling.BICUBIC), _cloud(rng, size, 5), 0.5))
    else:  # landscape, hills: sky, layered ridges, grain
        top, low = (tuple(rng.randint(60, 255) for _ in range(3)) for _ in range(2))
        sky = Image.composite(
            Image.new("RGB", size, low), Image.new("RGB", size, top), Image.linear_gradient("L").resize(size)
        )
        picture = Image.blend(sky, _tint(rng, _cloud(rng, size, 4)), 0.25)
        draw = ImageDraw.Draw(picture)
        for ridge in range(rng.randint(2, 5)):
            base = height * (0.35 + 0.15 * ridge + rng.uniform(-0.05, 0.05))
            rough = [rng.uniform(-1, 1) for _ in range(4)]
            shade = tuple(rng.randint(10, 190) for _ in range(3))
            line = [
                (
                    x,
                    base
                    + height
                    * 0.05
                    * sum(a * math.sin((i + 1) * 1.7 * x / width * 6.28 + a * 9) for i, a in enumerate(rough)),
                )
                for x in range(0, width + 8, 8)
            ]
            draw.polygon([(0, height), *line, (width, height)], fill=shade)
        picture = Image.blend(picture, Image.merge("RGB", [Image.effect_noise(size, 60)] * 3), 0.12)
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))
    return Scene(_jpeg(rng, style, picture), (), Image.new("L", size, 0), photo=True)


def scene(rng: Random, style: Style = TRAIN, photos: float = 0.08) -> Scene:
    """A drawing or, with probability `photos`, a photograph-like picture."""
    return photo(rng, style) if rng.random() < photos else drawn(rng, style)
