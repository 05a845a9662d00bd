"""Files with unusual metadata, checksums and endings, built byte by byte: intact pictures are accepted, damaged ones
refused."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from impchat import images, settings
from impchat.errors import ImageError

SIDE = 24
NOISE = np.random.default_rng(7).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
ROWS = zlib.compress(b"".join(b"\0" + row.tobytes() for row in NOISE))
HEADER = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)


def chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) if crc is None else crc)
    )


def png(*before: bytes, header: bytes = HEADER, rows: bytes = ROWS, after: bytes = b"") -> bytes:
    whole = chunk(b"IHDR", header) + b"".join(before) + chunk(b"IDAT", rows) + after
    return b"\x89PNG\r\n\x1a\n" + whole + chunk(b"IEND", b"")


def shown(data: bytes) -> np.ndarray:
    """The stored pixels."""
    return np.asarray(images.decode(images.prepare(data).data)).astype(int)


def seen(data: bytes) -> np.ndarray:
    """The pixels before re-encoding, which changes those of a JPEG slightly."""
    return np.asarray(images.decode(data)).astype(int)


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        images.prepare(data)
    return caught.value.code


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


MEGABYTES = random.Random(3).randbytes(1_100_000)
LONG_TEXTS = {
    "a workflow in zTXt": [chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"node " * 260_000))],
    "a workflow in tEXt": [chunk(b"tEXt", b"workflow\0" + b"node " * 260_000)],
    "a workflow in iTXt": [chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"node " * 260_000))],
    "plain XMP": [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x/>" * 400_000)],
    "a profile of 1.1 MB": [chunk(b"iCCP", b"long\0\0" + zlib.compress(MEGABYTES))],
    "EXIF of 1.1 MB": [chunk(b"eXIf", b"II*\0" + MEGABYTES)],
    "texts of 70 MB in all": [chunk(b"zTXt", b"note %d\0\0" % n + zlib.compress(bytes(700_000))) for n in range(100)],
    "a text that is not packed as it says": [chunk(b"zTXt", b"note\0\x07nonsense")],
}


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_png_with_long_metadata_is_accepted(name: str) -> None:
    for data in (png(*LONG_TEXTS[name]), png(after=b"".join(LONG_TEXTS[name]))):
        assert (shown(data) == NOISE).all()
        assert len(images.prepare(data).data) < 4000


def test_a_bomb_in_a_png_costs_no_memory() -> None:
    bomb = zlib.compress(bytes(200 * 2**20))
    texts = [
        chunk(name, key + start + bomb)
        for key in (b"note", b"Raw profile type exif", b"XML:com.adobe.xmp")
        for name, start in ((b"zTXt", b"\0\0"), (b"iTXt", b"\0\1\0\0\0"))
    ]
    data = png(*texts, chunk(b"iCCP", b"x\0\0" + bomb))
    tracemalloc.start()
    try:
        assert (shown(data) == NOISE).all()
        assert tracemalloc.get_traced_memory()[1] < 4 * settings.IMAGE_PROFILE_BYTES
    finally:
        tracemalloc.stop()


ANCILLARY = {
    b"iCCP": b"x\0\0" + zlib.compress(b"profile"),
    b"pHYs": struct.pack(">IIB", 2835, 2835, 1),
    b"iTXt": b"note\0\0\0\0\0words",
    b"tEXt": b"note\0words",
    b"zTXt": b"note\0\0" + zlib.compress(b"words"),
    b"tIME": struct.pack(">HBBBBB", 2026, 1, 2, 3, 4, 5),
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", *range(8)),
    b"sRGB": b"\0",
    b"eXIf": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",  # rotated to the right
    b"tRNS": struct.pack(">HHH", *NOISE[0, 0].tolist()),
    b"bKGD": bytes(6),
    b"acTL": struct.pack(">II", 2, 0),
    b"fcTL": struct.pack(">5IHHBB", 0, SIDE, SIDE, 0, 0, 1, 10, 0, 0),
    b"prVt": b"private",
}


@pytest.mark.parametrize("name", ANCILLARY)
def test_a_wrong_checksum_or_length_outside_the_pixels_does_not_spoil_a_png(name: bytes) -> None:
    body = ANCILLARY[name]
    for broken in (
        chunk(name, body, crc=1),
        *(chunk(name, body[:length]) for length in range(len(body) - 6)),
        chunk(name, body[:1]),
    ):
        assert (shown(png(broken)) == NOISE).all()
        assert (shown(png(after=broken)) == NOISE).all()


def test_a_wrong_checksum_of_the_pixels_is_an_error() -> None:
    palette = np.arange(48, dtype=np.uint8).tobytes()
    indexed = struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0)
    rows = zlib.compress(bytes(4 * 5))
    signature, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
    parts = [(b"IHDR", indexed), (b"PLTE", palette), (b"IDAT", rows)]
    assert images.prepare(signature + b"".join(chunk(*part) for part in parts) + end).image.width == 4
    for wrong in range(3):
        chunks = (chunk(*part, crc=1 if at == wrong else None) for at, part in enumerate(parts))
        assert refused(signature + b"".join(chunks) + end) == "image.truncated"
    damaged = bytearray(png())
    damaged[-40] ^= 1
    assert refused(bytes(damaged)) == "image.truncated"


def test_a_png_cut_off_after_its_pixels_is_accepted() -> None:
    data = png(after=chunk(b"tEXt", b"note\0" + b"words " * 100))
    pixels_end = data.index(b"tEXt") - 4
    for length in (pixels_end, pixels_end + 6, pixels_end + 300, len(data) - 12, len(data) - 5):
        assert (shown(data[:length]) == NOISE).all()
    assert (shown(data + b"garbage" * 100) == NOISE).all()
    assert refused(data[: pixels_end - 40]) == "image.truncated"


@pytest.mark.parametrize("chunks", ["eXIf", "Raw profile type exif", "XMP", "packed XMP"])
def test_a_png_is_rotated_upright_by_its_metadata(chunks: str) -> None:
    exif = ANCILLARY[b"eXIf"]
    xmp = b'<x tiff:Orientation="6"/>'
    said = {
        "eXIf": chunk(b"eXIf", exif),
        "Raw profile type exif": chunk(
            b"zTXt",
            b"Raw profile type exif\0\0"
            + zlib.compress(b"\nexif\n  99\n" + (b"Exif\0\0" + exif).hex().encode() + b"\n"),
        ),
        "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "packed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0x\0" + zlib.compress(xmp)),
    }[chunks]
    for data in (png(said), png(after=said)):
        assert (shown(data) == np.rot90(NOISE, -1)).all()


SMOOTH = Image.fromarray(np.linspace(0, 255, 90 * 70 * 3).astype(np.uint8).reshape(70, 90, 3))
BUSY = Image.effect_noise((90, 70), 80).convert("RGB")
WAYS_OF_JPEG = {
    "plain": {},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 3},
    "progressive with restarts": {"progressive": True, "restart_marker_blocks": 2},
    "all in one": {"subsampling": 0, "optimize": True},
}


@pytest.mark.parametrize("way", WAYS_OF_JPEG)
@pytest.mark.parametrize("picture", [SMOOTH, BUSY, BUSY.convert("L")], ids=["smooth", "busy", "gray"])
def test_a_jpeg_that_lacks_only_its_end_marker_is_accepted(way: str, picture: Image.Image) -> None:
    data = saved(picture, "JPEG", quality=90, **WAYS_OF_JPEG[way])
    assert data.endswith(b"\xff\xd9")
    whole = seen(data)
    stripped = data[:-2]
    comment = segment(0xFE, b"cut off" * 20)
    for ending in (b"", b"\xff", bytes(700), comment, comment[:30], b"\xff\xff\xd9", b"\xff\xd9 and a trailer"):
        assert (seen(stripped + ending) == whole).all(), ending


@pytest.mark.parametrize("way", WAYS_OF_JPEG)
@pytest.mark.parametrize("picture", [SMOOTH, BUSY, BUSY.convert("L")], ids=["smooth", "busy", "gray"])
def test_a_jpeg_cut_anywhere_in_its_pixels_is_refused(way: str, picture: Image.Image) -> None:
    data = saved(picture, "JPEG", quality=90, **WAYS_OF_JPEG[way])
    begin = data.index(b"\xff\xda") + 14
    for length in range(begin, len(data) - 8, max(1, (len(data) - begin) // 20)):
        assert refused(data[:length] + bytes(500 * (length % 2))) == "image.truncated", length
    for mark in (b"\xff\xda", *(bytes((0xFF, 0xD0 + n)) for n in range(8))):  # between scans and restart intervals
        place = data.find(mark, begin)
        while place > 0:
            assert refused(data[:place]) == "image.truncated", place
            place = data.find(mark, place + 1)


def test_data_around_the_pixels_of_a_jpeg_does_not_spoil_it() -> None:
    data = saved(BUSY, "JPEG", quality=90)
    whole = seen(data)
    lie = [
        segment(0xE0, b"JFIF\0"),
        segment(0xE1, b"Exif\0\0"),
        *(segment(0xE1, b"Exif\0\0" + random.Random(n).randbytes(200)) for n in range(50)),
        *(segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + random.Random(n).randbytes(200)) for n in range(50)),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 65_000) * 60,
        segment(0xE1, b"Exif\0\0" + b"x" * 65_000) * 60,
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\1"),
        b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 60)) + b"x" * 65_000) for n in range(1, 61)),
        segment(0xE2, b"MPF\0" + bytes(40)),
        segment(0xED, b"Photoshop 3.0\x008BIM"),
        segment(0xEE, b"Adobe"),
        segment(0xFE, b"comment" * 9000) * 30,
        b"\xff\xff\xff",
    ]
    for before in lie:
        assert (seen(data[:2] + before + data[2:]) == whole).all(), before[:40]
    assert (seen(data + saved(SMOOTH, "JPEG")) == whole).all()  # a second picture after the first, as in MPO files


def test_damage_after_the_pixels_of_a_webp_does_not_spoil_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(NOISE)
    for options in ({"lossless": True}, {"quality": 80}):
        whole = seen(saved(picture, "WEBP", **options))
        data = saved(picture, "WEBP", exif=exif, xmp=b"<x/>" * 100_000, **options)
        assert (seen(data) == np.rot90(whole, -1)).all()
        assert (seen(data[: data.index(b"XMP ") + 500]) == np.rot90(whole, -1)).all()
        assert (seen(data[: data.index(b"EXIF") + 9]) == whole).all()
        assert (seen(data[: data.index(b"EXIF") + 3]) == whole).all()
        assert (seen(data + b"garbage") == np.rot90(whole, -1)).all()
        assert refused(data[: data.index(b"EXIF") - 40]) == "image.truncated"
    for size in range(8, 24):  # some of these have an odd number of bytes
        data = saved(picture.resize((size, size)), "WEBP", quality=50)
        odd = struct.unpack_from("<I", data, 16)[0] % 2
        assert (seen(data[: len(data) - odd]) == seen(data)).all()


def test_an_animation_whose_later_frames_were_cut_off_is_accepted() -> None:
    first, second = Image.fromarray(NOISE), BUSY.resize((SIDE, SIDE))
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(first, kind, save_all=True, append_images=[second], **options)
        assert (seen(data[:-30]) == seen(data)).all(), kind


def test_a_gif_without_its_end_is_accepted_and_one_cut_in_its_pixels_is_not() -> None:
    data = saved(Image.fromarray(NOISE), "GIF")
    assert data.endswith(b"\0;")
    for ending in (data[:-1], data[:-2], data + b"garbage"):
        assert (seen(ending) == seen(data)).all()
    assert refused(data[:-40]) == "image.truncated"


def test_random_damage_gives_a_picture_or_an_image_error() -> None:
    chance = random.Random(11)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("PNG", "JPEG", "WEBP"):
        data = saved(Image.fromarray(NOISE), kind, exif=exif, icc_profile=profile)
        for _ in range(150):
            damaged = bytearray(data[: chance.randrange(20, len(data) + 1)])
            for _ in range(chance.randint(0, 4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            try:
                images.prepare(bytes(damaged))
            except ImageError as exc:
                assert exc.code in ("image.truncated", "image.not_an_image", "image.too_many_pixels")
