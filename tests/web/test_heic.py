"""HEIC, the format of iPhone photos: decoded on desktops, where the page's packages include pillow-heif."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from impchat import images
from impchat.errors import ImageError


def half_red_half_blue() -> Image.Image:
    picture = Image.new("RGB", (128, 64), (220, 30, 30))
    picture.paste((30, 40, 210), (64, 0, 128, 64))
    return picture


def heic(picture: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(picture).save(out, quality=95, **options)
    return out.getvalue()


def test_a_heic_photo_becomes_a_jpeg() -> None:
    prepared = images.prepare(heic(half_red_half_blue()))
    assert (prepared.image.width, prepared.image.height, prepared.image.mime) == (128, 64, "image/jpeg")
    pixels = np.asarray(images.decode(prepared.data)).astype(int)
    assert np.abs(pixels[32, 20] - (220, 30, 30)).max() < 12
    assert np.abs(pixels[32, 108] - (30, 40, 210)).max() < 12
    assert images.prepare(prepared.data) == prepared


def test_a_heic_photo_is_rotated_upright_once() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "SECRET camera"
    prepared = images.prepare(heic(half_red_half_blue(), exif=exif.tobytes()))
    assert (prepared.image.width, prepared.image.height) == (64, 128)
    pixels = np.asarray(images.decode(prepared.data)).astype(int)
    assert pixels[20, 32].argmax() == 0 and pixels[108, 32].argmax() == 2  # row 0 was the right side
    assert b"SECRET" not in prepared.data


def test_transparency_in_a_heic_file_becomes_white() -> None:
    picture = Image.new("RGBA", (64, 64), (0, 0, 255, 0))
    pixels = np.asarray(images.decode(images.prepare(heic(picture)).data))
    assert pixels.min() > 245


def test_a_truncated_heic_file_is_refused() -> None:
    data = heic(half_red_half_blue())
    for length in (40, len(data) // 2, len(data) - 20):
        with pytest.raises(ImageError) as caught:
            images.prepare(data[:length])
        assert caught.value.code == "image.truncated"


def test_a_heic_header_that_claims_too_many_pixels_is_refused() -> None:
    data = heic(half_red_half_blue())
    size = data.index(b"ispe") + 8
    bomb = data[:size] + (60_000).to_bytes(4, "big") * 2 + data[size + 8 :]
    with pytest.raises(ImageError) as caught:
        images.prepare(bomb)
    assert caught.value.code in ("image.too_many_pixels", "image.truncated")  # libheif has its own limit
