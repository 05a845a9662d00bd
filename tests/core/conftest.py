"""Fixtures of the core's tests: the bundled demo model and drawn pictures."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import pytest
from PIL import Image, ImageDraw

from impchat import bundle, paths
from impchat.bundle import Bundle
from impchat.messages import Picture

Draw = Callable[..., Picture]


@pytest.fixture(scope="session")
def demo() -> Bundle:
    """The bundled demo model."""
    return bundle.load(paths.demo_bundle())


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Returns a function that draws a circle on white; each colour gives a different picture."""

    def circle(colour: str = "red", size: tuple[int, int] = (320, 240)) -> Picture:
        drawing = Image.new("RGB", size, "white")
        ImageDraw.Draw(drawing).ellipse([100, 60, 220, 180], fill=colour)
        out = io.BytesIO()
        drawing.save(out, "PNG")
        return Picture(hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue())

    return circle
