"""Pictures: every supported format becomes plain upright RGB, every unusable file gives one clear sentence."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageDraw, PngImagePlugin

from impchat import images, settings
from impchat.errors import ImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")


def blocks(width: int = 96, height: int = 64) -> Image.Image:
    """A picture whose four quarters and left edge differ, so that every rotation and flip is visible."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (220, 30, 30)
    pixels[: height // 2, width // 2 :] = (30, 190, 40)
    pixels[height // 2 :, : width // 2] = (40, 60, 210)
    pixels[height // 2 :, width // 2 :] = (240, 220, 60)
    pixels[:, : width // 8] //= 2
    return Image.fromarray(pixels)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(images.decode(data)).astype(int)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).mean())


def code_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        images.prepare(data)
    assert caught.value.sentence("en") and caught.value.sentence("zh")
    return caught.value.code


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks:
        parts.append(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
    return b"".join(parts)


def png_header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_becomes_the_same_upright_rgb_picture(kind: str) -> None:
    prepared = images.prepare(saved(blocks(), kind))
    assert (prepared.image.width, prepared.image.height) == (96, 64)
    assert difference(pixels_of(prepared.data), np.asarray(blocks()).astype(int)) < 4
    assert prepared.image.sha256 == hashlib.sha256(prepared.data).hexdigest()
    assert prepared.image.size_bytes == len(prepared.data)
    assert prepared.image.mime == ("image/png" if kind in ("PNG", "GIF") else "image/jpeg")


@pytest.mark.parametrize(
    "data",
    [
        saved(blocks(), "PNG"),
        saved(blocks(), "JPEG"),
        saved(blocks(), "JPEG", progressive=True, restart_marker_blocks=2),
    ],
    ids=["png", "jpeg", "progressive"],
)
def test_a_plain_small_upright_file_is_kept_byte_for_byte(data: bytes) -> None:
    assert images.prepare(data).data == data


@pytest.mark.parametrize("kind", [*FORMATS])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_preparing_a_prepared_picture_changes_nothing(kind: str, mode: str) -> None:
    gray = blocks(2500, 40).convert("L")
    picture = (
        Image.fromarray(np.asarray(gray).astype(np.uint16) << 8) if mode == "I;16" else blocks(2500, 40).convert(mode)
    )
    try:
        data = saved(picture, kind)
    except (OSError, KeyError, ValueError):  # not every format supports every mode
        assert (kind, mode) not in [("PNG", "RGB"), ("JPEG", "CMYK"), ("PNG", "I;16")]
        return
    once = images.prepare(data)
    assert images.prepare(once.data) == once
    assert max(once.image.width, once.image.height) == settings.IMAGE_STORED_SIDE
    with Image.open(io.BytesIO(once.data)) as stored:
        assert stored.mode == "RGB"


def as_stored_with(orientation: int, upright: np.ndarray) -> np.ndarray:
    """The rows as a camera stores them: EXIF says on which side of the upright picture row 0 and column 0 lie."""
    row, column = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    stored = upright if row in ("top", "bottom") else upright.transpose(1, 0, 2)
    stored = stored[::-1] if row in ("bottom", "right") else stored
    return stored[:, ::-1] if column in ("bottom", "right") else stored


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_the_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = np.asarray(blocks())
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(as_stored_with(orientation, upright))), kind, exif=exif)
    prepared = images.prepare(data)
    assert difference(pixels_of(prepared.data), upright.astype(int)) < 4
    with Image.open(io.BytesIO(prepared.data)) as stored:
        assert ExifTags.Base.Orientation not in stored.getexif()


def test_a_large_turned_photo_is_scaled_and_upright() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held upright: row 0 is the right side
    prepared = images.prepare(saved(blocks(6000, 4000), "JPEG", exif=exif))
    assert (prepared.image.width, prepared.image.height) == (1365, 2048)
    pixels = pixels_of(prepared.data)
    assert difference(pixels[100, 1000], np.array((110, 15, 15))) < 6  # the dark edge of the red quarter, now on top
    assert difference(pixels[900, 1000], np.array((220, 30, 30))) < 6
    assert difference(pixels[1900, 1000], np.array((30, 190, 40))) < 6
    assert difference(pixels[900, 300], np.array((40, 60, 210))) < 6


def test_broken_metadata_does_not_spoil_an_intact_picture() -> None:
    prepared = images.prepare(saved(blocks(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense"))
    assert difference(pixels_of(prepared.data), np.asarray(blocks()).astype(int)) < 4


def test_transparency_becomes_white() -> None:
    for mode, transparent in (("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))):
        picture = Image.new(mode, (20, 10), transparent)
        picture.paste((0, 0, 255, 255) if mode == "RGBA" else (0, 255), (0, 0, 10, 10))
        pixels = pixels_of(images.prepare(saved(picture, "PNG")).data)
        assert (pixels[5, 15] == 255).all()
        assert (pixels[5, 5] == ((0, 0, 255) if mode == "RGBA" else (0, 0, 0))).all()
    half = pixels_of(images.prepare(saved(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG")).data)
    assert np.abs(half[0, 0] - (255, 127, 127)).max() <= 1


def test_a_palette_with_a_transparent_colour_gets_a_white_background() -> None:
    picture = Image.new("P", (20, 10), 0)
    picture.putpalette([0, 0, 0, 0, 128, 0])
    picture.paste(1, (0, 0, 10, 10))
    for kind in ("PNG", "GIF"):
        pixels = pixels_of(images.prepare(saved(picture, kind, transparency=0)).data)
        assert (pixels[5, 15] == 255).all() and (pixels[5, 5] == (0, 128, 0)).all()


def drawn(ink: tuple[int, ...], mode: str = "RGBA", width: int = 5) -> Image.Image:
    """A circle on a transparent background, with soft edges."""
    large = Image.new("RGBA", (800, 600))
    ImageDraw.Draw(large).ellipse((200, 100, 600, 500), outline=ink, width=4 * width)
    return large.resize((200, 150)).convert(mode)


def test_a_white_drawing_on_transparency_can_be_seen() -> None:
    for picture in (
        drawn((255, 255, 255)),
        drawn((240, 244, 250)),
        drawn((255, 255, 255), "LA"),
        drawn((255,) * 3, width=1),
    ):
        for kind in ("PNG", "WEBP"):
            pixels = pixels_of(images.prepare(saved(picture, kind)).data)
            assert np.abs(pixels[2, 2] - 64).max() < 4
            assert pixels[75, 45:60].max() > 150  # the line
    palette = drawn((255, 255, 255)).quantize(4)
    assert pixels_of(saved(palette, "GIF"))[2, 2].max() < 80


def test_a_drawing_of_any_other_colour_gets_a_white_background() -> None:
    solid = Image.new("RGBA", (200, 150))
    solid.paste((250, 250, 250, 255), (20, 20, 90, 130))  # white paper with a large black area
    solid.paste((0, 0, 0, 255), (90, 20, 180, 130))
    nothing = Image.new("RGBA", (200, 150), (255, 255, 255, 0))
    for picture in (drawn((0, 0, 0)), drawn((255, 220, 60)), drawn((128, 128, 128), "LA"), solid, nothing):
        data = images.prepare(saved(picture, "PNG")).data
        assert (pixels_of(data)[2, 2] == 255).all()
        assert (pixels_of(images.thumbnail(data))[2, 2] > 250).all()


def test_sixteen_bits_of_gray_keep_their_shades() -> None:
    ramp = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0))
    pixels = pixels_of(images.prepare(saved(ramp, "PNG")).data)
    assert np.abs(pixels[0, :, 0] - np.arange(256)).max() <= 1
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_a_cmyk_photo_keeps_its_colours() -> None:
    cyan_magenta = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    cyan_magenta.paste((0, 255, 0, 0), (8, 0, 16, 16))
    pixels = pixels_of(images.prepare(saved(cyan_magenta, "JPEG")).data)
    assert difference(pixels[8, 2], np.array((0, 255, 255))) < 12
    assert difference(pixels[8, 13], np.array((255, 0, 255))) < 12


def test_only_the_first_frame_of_an_animation_is_taken() -> None:
    red, blue = Image.new("RGB", (12, 8), (255, 0, 0)), Image.new("RGB", (12, 8), (0, 0, 255))
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        pixels = pixels_of(images.prepare(saved(red, kind, save_all=True, append_images=[blue])).data)
        assert difference(pixels[4, 6], np.array((255, 0, 0))) < 6, kind


def profile_with_red_and_blue_exchanged() -> bytes:
    """An ICC profile that differs from sRGB only in exchanged primaries, so that its use is visible."""
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = struct.unpack_from(">I", standard, 128)[0]
    places = {standard[p : p + 4]: p + 4 for p in range(132, 132 + 12 * count, 12)}
    swapped = bytearray(standard)
    for one, other in ((b"rXYZ", b"bXYZ"), (b"bXYZ", b"rXYZ")):
        swapped[places[one] : places[one] + 8] = standard[places[other] : places[other] + 8]
    return bytes(swapped)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_colours_are_converted_by_the_files_profile(kind: str) -> None:
    data = saved(Image.new("RGB", (32, 32), (255, 0, 0)), kind, icc_profile=profile_with_red_and_blue_exchanged())
    pixels = pixels_of(images.prepare(data).data)
    assert difference(pixels[16, 16], np.array((0, 0, 255))) < 8


def test_a_broken_profile_leaves_the_colours_as_they_are() -> None:
    data = saved(Image.new("RGB", (32, 32), (255, 0, 0)), "PNG", icc_profile=b"no profile")
    assert (pixels_of(images.prepare(data).data)[0, 0] == (255, 0, 0)).all()


def icc(space: bytes, connection: bytes, tag: bytes, data: bytes) -> bytes:
    """An ICC profile with a white point and one tag that gives the meaning of the numbers."""
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)  # D50
    data += bytes(-len(data) % 4)
    table = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, tag, 176, len(data))
    head = struct.pack(">I4sI4s4s4s", 176 + len(data), b"", 0x02100000, b"prtr", space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + white[8:]
    return head.ljust(128, b"\0") + table + white + data


def test_a_gray_picture_is_converted_by_its_profile() -> None:
    linear = icc(b"GRAY", b"XYZ ", b"kTRC", b"curv\0\0\0\0\0\0\0\0")
    for mode, kind in (("L", "PNG"), ("L", "JPEG"), ("LA", "PNG")):
        data = saved(Image.new("L", (16, 16), 51).convert(mode), kind, icc_profile=linear)
        assert difference(pixels_of(images.prepare(data).data)[8, 8], np.array((124, 124, 124))) < 3, (mode, kind)
    deep = Image.fromarray(np.full((16, 16), 51 << 8, np.uint16))
    assert difference(pixels_of(saved(deep, "PNG", icc_profile=linear))[8, 8], np.array((124, 124, 124))) < 3
    # a profile for another colour space is ignored
    assert difference(pixels_of(saved(blocks(), "PNG", icc_profile=linear)), np.asarray(blocks()).astype(int)) == 0


def test_a_cmyk_photo_is_converted_by_its_profile() -> None:
    white, black, red = (255, 128, 128), (0, 128, 128), (135, 208, 195)  # Lab
    corners = bytes((*white, *black) * 4 + (*red, *black) * 4)  # cyan ink is defined as red
    straight = bytes(range(256))
    table = b"mft1\0\0\0\0\4\3\2\0" + struct.pack(">9i", *(65536, 0, 0, 0) * 2, 65536)
    red_ink = icc(b"CMYK", b"Lab ", b"A2B0", table + straight * 4 + corners + straight * 3)
    photo = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    pixels = pixels_of(saved(photo, "JPEG", icc_profile=red_ink))
    assert difference(pixels[8, 8], np.array((255, 0, 0))) < 20
    for nonsense in (icc(b"GRAY", b"XYZ ", b"kTRC", b"curv\0\0\0\0\0\0\0\0"), red_ink[:200], b"no profile"):
        pixels = pixels_of(saved(photo, "JPEG", icc_profile=nonsense))
        assert difference(pixels[8, 8], np.array((0, 255, 255))) < 12


def test_a_profile_of_more_than_a_megabyte_is_used() -> None:
    long = bytearray(profile_with_red_and_blue_exchanged() + random.Random(5).randbytes(1_200_000))
    long[:4] = struct.pack(">I", len(long))
    data = saved(Image.new("RGB", (32, 32), (255, 0, 0)), "PNG", icc_profile=bytes(long))
    assert difference(pixels_of(images.prepare(data).data)[16, 16], np.array((0, 0, 255))) < 8


def test_no_metadata_is_stored() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "SECRET camera"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (47.0, 22.0, 1.5)}
    )
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Author", "SECRET person")
    notes.add_itxt("XML:com.adobe.xmp", "SECRET xmp")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files = [
        saved(blocks(), "JPEG", exif=exif, comment=b"SECRET", xmp=b"SECRET xmp", icc_profile=profile),
        saved(blocks(), "PNG", exif=exif, pnginfo=notes, icc_profile=profile),
        saved(blocks(), "WEBP", exif=exif, xmp=b"SECRET xmp", icc_profile=profile),
        saved(blocks(), "AVIF", exif=exif, xmp=b"SECRET xmp", icc_profile=profile),
        saved(blocks(), "GIF", comment=b"SECRET"),
        saved(blocks(), "JPEG") + b"SECRET trailer",
        saved(blocks(), "PNG") + b"SECRET trailer",
        saved(blocks(), "JPEG", comment=b"SECRET"),
    ]
    for data in files:
        assert b"SECRET" in data
        stored = images.prepare(data).data
        for mark in (b"SECRET", b"Exif", b"eXIf", b"http://ns", b"ICC_PROFILE", b"iCCP"):
            assert mark not in stored
        with Image.open(io.BytesIO(stored)) as picture:
            assert not picture.getexif() and "icc_profile" not in picture.info


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_refused_wherever_it_ends(kind: str) -> None:
    data = saved(blocks(), kind)
    for length in (len(data) // 4, len(data) // 2, len(data) * 9 // 10):
        assert code_of(data[:length]) == "image.truncated"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_gives_a_picture_or_an_image_error(kind: str) -> None:
    data, chance = saved(blocks(), kind), random.Random(kind)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            prepared = images.prepare(bytes(damaged))
        except ImageError as refused:
            assert refused.code in ("image.truncated", "image.not_an_image", "image.too_many_pixels")
        else:
            assert images.prepare(prepared.data) == prepared


def test_files_that_are_no_pictures_are_refused() -> None:
    assert code_of(b"") == "image.empty"
    assert code_of(b"Dear diary, this is a text file with the name photo.png.\n") == "image.not_an_image"
    assert code_of("你好，这不是图片。".encode()) == "image.not_an_image"
    assert code_of(b"\0" * 1000) == "image.not_an_image"
    assert code_of(b"RIFF\x24\0\0\0WAVEfmt ") == "image.not_an_image"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (saved(blocks(), "BMP"), "BMP"),
        (saved(blocks(), "TIFF"), "TIFF"),
        (saved(blocks(), "ICO"), "ICO"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\xef\xbb\xbf  <svg/>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
    ],
    ids=["bmp", "tiff", "ico", "svg", "svg with bom", "pdf"],
)
def test_unsupported_formats_are_named(data: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=name) as caught:
        images.prepare(data)
    assert caught.value.code == "image.format_unsupported"


def test_heic_without_its_package_is_refused_by_name() -> None:
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    if importlib.util.find_spec("pillow_heif"):
        assert code_of(data) == "image.truncated"
    else:
        with pytest.raises(ImageError, match="HEIC") as caught:
            images.prepare(data)
        assert caught.value.code == "image.format_unsupported"


def test_a_file_above_the_limit_is_refused_without_reading_it() -> None:
    data = saved(blocks(), "PNG")
    too_large = data + bytes(settings.IMAGE_BYTES + 1 - len(data))
    with pytest.raises(ImageError, match=r"65 MB.*64 MB"):
        images.prepare(too_large)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    no_pixels = png(png_header(60_000, 60_000), (b"IDAT", b""), (b"IEND", b""))
    assert code_of(no_pixels) == "image.too_many_pixels"

    jpeg = bytearray(saved(blocks(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    assert code_of(bytes(jpeg)) == "image.too_many_pixels"

    gif = bytearray(saved(blocks(), "GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    assert code_of(bytes(gif)) == "image.too_many_pixels"

    avif = saved(blocks(), "AVIF")
    size = avif.index(b"ispe") + 8
    assert code_of(avif[:size] + struct.pack(">II", 60_000, 60_000) + avif[size + 8 :]) in (
        "image.too_many_pixels",
        "image.truncated",  # libavif has its own limit
    )


def test_a_gif_frame_larger_than_its_screen_does_not_bypass_the_limit() -> None:
    gif = bytearray(saved(blocks(), "GIF"))
    frame = gif.index(b"\x2c", 13 + 3 * 2 ** ((gif[10] & 7) + 1))
    gif[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    assert code_of(bytes(gif)) == "image.too_many_pixels"


def test_the_largest_phone_photo_is_accepted() -> None:
    with_108_megapixels = png(
        png_header(12_000, 9_000), (b"IDAT", zlib.compress(bytes(9_000 * (12_000 * 3 + 1)), 1)), (b"IEND", b"")
    )
    prepared = images.prepare(with_108_megapixels)
    assert (prepared.image.width, prepared.image.height) == (2048, 1536)


def gray_jpeg(width: int, height: int, subtype: bytes = b"\xc0") -> bytes:
    """A gray photo of any size that needs little memory to build: each of its 8 x 8 blocks has the same code."""
    data = saved(Image.new("RGB", (8, 8), (128, 128, 128)), "JPEG", subsampling=0)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda") + 14
    head = data[:frame] + b"\xff" + subtype + data[frame + 2 : frame + 5] + struct.pack(">HH", height, width)
    head += data[frame + 9 : scan]
    four = int("00101000000000" * 4, 2).to_bytes(7, "big")  # the code of four blocks: no change, no detail
    return head + four * -(-(-(-width // 8) * -(-height // 8)) // 4) + b"\xff\xd9"


def test_a_photo_of_200_megapixels_is_accepted() -> None:
    prepared = images.prepare(gray_jpeg(16320, 12240))
    assert (prepared.image.width, prepared.image.height) == (2048, 1536)
    assert difference(pixels_of(prepared.data), np.full((1536, 2048, 3), 128)) < 1
    wide = images.prepare(gray_jpeg(60_000, 4000))
    assert (wide.image.width, wide.image.height) == (2048, 137)


def test_larger_pictures_and_those_that_cannot_be_decoded_at_a_fraction_are_refused() -> None:
    with pytest.raises(ImageError, match="250 million"):
        images.prepare(gray_jpeg(60_000, 60_000)[:100_000])
    for data in (
        gray_jpeg(16320, 12240, b"\xc2")[:100_000],  # progressive
        png(png_header(16320, 12240), (b"IDAT", b""), (b"IEND", b"")),
    ):
        with pytest.raises(ImageError, match="120 million"):
            images.prepare(data)
    with pytest.raises(ImageError, match="120 million"):
        images.decode(gray_jpeg(16320, 12240))


@pytest.mark.parametrize("size", [(10_000, 1), (1, 20_000), (1, 1), (2, 3)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_very_thin_picture_keeps_at_least_one_pixel(kind: str, size: tuple[int, int]) -> None:
    data = saved(Image.new("RGB", size, "green"), kind)
    prepared = images.prepare(data)
    scale = min(1, 2048 / max(size))
    assert (prepared.image.width, prepared.image.height) == tuple(max(1, round(n * scale)) for n in size)
    for made in (images.thumbnail(data), images.thumbnail(prepared.data), images.thumbnail(prepared.data, 1024)):
        assert difference(pixels_of(made)[0, 0], np.array((0, 128, 0))) < 4


def test_a_thumbnail_is_a_small_jpeg_of_the_same_shape() -> None:
    small = images.thumbnail(images.prepare(saved(blocks(960, 640), "PNG")).data)
    with Image.open(io.BytesIO(small)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (320, 213))
    unchanged = images.thumbnail(saved(blocks(), "PNG"))
    with Image.open(io.BytesIO(unchanged)) as picture:
        assert picture.size == (96, 64)


def test_model_input_square_resizes_without_keeping_the_aspect() -> None:
    data = saved(blocks(300, 200), "PNG")
    got = images.model_input(data, 196, "square", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert got.shape == (1, 3, 196, 196) and got.dtype == np.float32 and got.flags.c_contiguous
    resized = np.asarray(blocks(300, 200).resize((196, 196), Image.Resampling.BICUBIC)).astype(np.float64)
    expected = ((resized / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    assert np.abs(got - expected).max() < 1e-6


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (301, 200), (64, 64)])
def test_model_input_pad_centres_the_picture_on_the_mean_colour(width: int, height: int) -> None:
    data = saved(blocks(width, height), "PNG")
    got = images.model_input(data, 384, "pad", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    side = max(width, height)
    canvas = np.full((side, side, 3), 127, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = np.asarray(blocks(width, height))
    resized = Image.fromarray(canvas).resize((384, 384), Image.Resampling.BICUBIC)
    expected = ((np.asarray(resized).astype(np.float64) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    assert np.abs(got - expected).max() < 1e-6


def test_model_input_uses_the_mean_and_deviation_of_each_channel() -> None:
    data = saved(Image.new("RGB", (10, 10), (255, 0, 51)), "PNG")
    got = images.model_input(data, 14, "square", (0.25, 0.5, 0.0), (0.5, 0.25, 1.0))
    assert np.allclose(got[0, :, 7, 7], (1.5, -2.0, 0.2), atol=1e-6)


def test_model_input_of_an_unusable_file_is_an_image_error() -> None:
    with pytest.raises(ImageError):
        images.model_input(b"not a picture", 196, "square", (0.5,) * 3, (0.5,) * 3)


def test_a_picture_from_a_file_is_the_same_as_from_memory(tmp_path: Path) -> None:
    file = tmp_path / "drawing.jpg"  # the name says JPEG, the bytes are PNG: the bytes count
    file.write_bytes(saved(blocks(), "PNG"))
    assert images.prepare(file.read_bytes()).image.mime == "image/png"
