"""Picture files: check them, and make what the store, front ends and models need of them.

In: the bytes of a PNG, JPEG, WebP, GIF (first frame), AVIF or, if pillow-heif is installed, HEIC file. Out: the bytes
to store (plain RGB, upright, without metadata, of limited size) with their hash, thumbnails, and the input array of a
vision encoder. Every unusable file raises ImageError.
This file does not know where pictures are kept, or which model reads them.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from impchat import settings
from impchat.errors import ImageError
from impchat.images import parts
from impchat.messages import Image

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL import ImageFile
    from PIL.Image import Image as Pixels

Aspect = Literal["square", "pad"]
"""square: resized to a square, the aspect is not kept. pad: padded to a square with the mean colour first."""

_LOSSLESS = ("PNG", "GIF")  # drawings and screenshots: stored losslessly; all others become JPEG
_OTHER_FORMATS = (  # first bytes of unsupported formats, so that the error can name them
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"8BPS", "PSD"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"\0\0\1\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# What Pillow raises for broken files: OSError and SyntaxError by design, the others by accident.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, RuntimeError, struct.error, zlib.error)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture ready to store: `image.sha256` is the hash of `data`."""

    data: bytes = field(repr=False)
    image: Image


def prepare(data: bytes, side: int = settings.IMAGE_STORED_SIDE) -> Prepared:
    """The picture in `data` in the form that is stored or sent. Idempotent.

    An upright plain RGB PNG or JPEG that is small enough is kept byte for byte. Anything else is decoded, turned
    upright, composited on white if transparent (or on dark gray, see `_paper`), scaled so that its longest side is at
    most `side` pixels, and encoded once: PNG and GIF as PNG, the others as JPEG.
    Raises ImageError "image.empty", "image.too_large_bytes", "image.too_many_pixels", "image.truncated",
    "image.not_an_image" or "image.format_unsupported"."""
    kind = _format(data)
    pixels, size = _read(data, kind, side)
    plain = max(size) <= side and _is_plain(data, kind)
    stored_kind = "PNG" if kind in _LOSSLESS else "JPEG"
    stored = data if plain else encode(pixels, stored_kind)
    mime = f"image/{stored_kind.lower()}"
    sha256 = hashlib.sha256(stored).hexdigest()
    return Prepared(stored, Image(sha256, pixels.width, pixels.height, mime, len(stored)))


def decode(data: bytes, side: int | None = None) -> Pixels:
    """The picture in `data`, upright and RGB; scaled down if its longest side exceeds `side` pixels. Raises ImageError
    as `prepare`."""
    return _read(data, _format(data), side)[0]


def thumbnail(data: bytes, side: int = settings.THUMBNAIL_SIDE) -> bytes:
    """A JPEG of the picture in `data`, its longest side at most `side` pixels. Raises ImageError as `prepare`."""
    return encode(decode(data, side), "JPEG")


def model_input(
    data: bytes, size: int, aspect: Aspect, mean: Sequence[float], std: Sequence[float]
) -> NDArray[numpy.float32]:
    """The input of a vision encoder for stored bytes: float32 (1, 3, size, size), (value / 255 - mean) / std.

    With `aspect` "pad", the picture is first centred on a square of the mean colour. Raises ImageError as `prepare`."""
    import numpy as np
    import PIL.Image

    pixels = decode(data)
    if aspect == "pad" and pixels.width != pixels.height:
        longest = max(pixels.size)
        square = PIL.Image.new("RGB", (longest, longest), tuple(int(255 * m) for m in mean))
        square.paste(pixels, ((longest - pixels.width) // 2, (longest - pixels.height) // 2))
        pixels = square
    pixels = pixels.resize((size, size), PIL.Image.Resampling.BICUBIC)
    levels = np.asarray(pixels, dtype=np.float32) / np.float32(255)
    values = (levels - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)


def is_picture(head: bytes) -> bool:
    """Whether a file that begins with `head` (64 bytes are enough) is in a format that `prepare` reads."""
    try:
        return bool(_format(head))
    except ImageError:
        return False


def _format(data: bytes) -> str:
    """The format, from the first bytes, not the file name: "PNG", "JPEG", "GIF", "WEBP", "AVIF" or "HEIC"."""
    if not data:
        raise ImageError("image.empty")
    if len(data) > settings.IMAGE_BYTES:
        raise ImageError("image.too_large_bytes", megabytes=-(-len(data) // 2**20), limit=settings.IMAGE_BYTES // 2**20)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = data[8 : int.from_bytes(data[:4], "big")][:256]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in _HEIC_BRANDS):
            return "HEIC"
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:512]
    for magic, name in _OTHER_FORMATS:
        if data.startswith(magic) or start.startswith(magic):
            raise ImageError("image.format_unsupported", format=name)
    if start.startswith(b"<?xml") and b"<svg" in start:
        raise ImageError("image.format_unsupported", format="SVG")
    raise ImageError("image.not_an_image")


def _reader(kind: str) -> Any:
    """Pillow's reader class for one format. Unlike PIL.Image.open it tries only the detected format, and applies our
    pixel limit instead of Pillow's process-wide one."""
    from PIL import AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin, features

    if kind == "HEIC":
        try:
            return importlib.import_module("pillow_heif").HeifImageFile
        except ImportError as exc:
            raise ImageError("image.format_unsupported", format=kind) from exc
    if kind in ("AVIF", "WEBP") and not features.check(kind.lower()):
        raise ImageError("image.format_unsupported", format=kind)
    return {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "AVIF": AvifImagePlugin.AvifImageFile,
    }[kind]


def _read(data: bytes, kind: str, side: int | None = None) -> tuple[Pixels, tuple[int, int]]:
    """The picture, scaled down if its longest side exceeds `side`, and its size (width, height) in the file."""
    from PIL import ImageChops

    try:
        found = parts.parts(data, kind)
    except _BROKEN as exc:
        raise ImageError("image.truncated", format=kind) from exc
    # A one-scan JPEG is scaled down while it is decoded; one with several scans is held in memory at full size.
    limit = settings.JPEG_PIXELS if found.one_scan and side is not None else settings.IMAGE_PIXELS
    file = _open(found, kind, limit)
    size = file.size
    pixels = _decode(file, kind, limit, side)
    if found.probe is not None:
        other = _decode(_open(parts.Parts(found.probe), kind, limit), kind, limit, side)
        if ImageChops.difference(pixels, other).getbbox():
            raise ImageError("image.truncated", format=kind)
    return pixels, size


def _open(found: parts.Parts, kind: str, limit: int) -> ImageFile.ImageFile:
    """Open the file and read its header without decoding. Raises if it has more than `limit` pixels."""
    import PIL.Image

    reader = _reader(kind)
    # Warnings about odd metadata, which are dropped anyway, would appear in the user's terminal.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    try:
        file: ImageFile.ImageFile = reader(io.BytesIO(found.data))
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as exc:
        raise ImageError("image.too_many_pixels", limit=limit // 10**6) from exc
    except _BROKEN as exc:
        raise ImageError("image.truncated", format=kind) from exc
    if file.width * file.height > limit:
        raise ImageError("image.too_many_pixels", limit=limit // 10**6)
    if found.profile is not None:
        file.info["icc_profile"] = found.profile
    return file


def _decode(file: ImageFile.ImageFile, kind: str, limit: int, side: int | None = None) -> Pixels:
    """The first frame as upright RGB; scaled down if its longest side exceeds `side`."""
    import PIL.Image

    try:
        if side is not None:  # draft() decodes a large JPEG at 1/2, 1/4 or 1/8, never below `side`
            longest = max(file.size)
            file.draft(None, (-(-file.width * side // longest), -(-file.height * side // longest)))
        file.load()
        orientation = _orientation(file)
        pixels = _rgb(file)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as exc:
        raise ImageError("image.too_many_pixels", limit=limit // 10**6) from exc
    except _BROKEN as exc:
        raise ImageError("image.truncated", format=kind) from exc
    if side is not None and max(pixels.size) > side:
        scale = side / max(pixels.size)
        smaller = (max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale)))
        pixels = pixels.resize(smaller, PIL.Image.Resampling.LANCZOS)
    turn = PIL.Image.Transpose
    turns = {  # EXIF orientation -> transposition to upright
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return pixels.transpose(turns[orientation]) if orientation in turns else pixels


def _orientation(file: ImageFile.ImageFile) -> int:
    """The EXIF orientation; 1 (upright) if the metadata are missing or broken, because the picture itself is usable."""
    try:
        return int(file.getexif().get(0x0112, 1))
    except _BROKEN:
        return 1


def _rgb(file: ImageFile.ImageFile) -> Pixels:
    """The decoded pixels as 8-bit sRGB; transparency is composited on `_paper`."""
    import numpy as np
    import PIL.Image

    profile = file.info.get("icc_profile")
    if file.mode.startswith("I"):  # 16-bit gray: Pillow's own conversion would clip to white
        return _srgb(PIL.Image.fromarray((np.asarray(file) >> 8).astype(np.uint8)), profile)
    if not file.has_transparency_data:
        return _srgb(file, profile)
    layer = file.convert("RGBA")
    colours = _srgb(file.convert("L") if file.mode == "LA" else layer.convert("RGB"), profile)
    layer = PIL.Image.merge("RGBA", (*colours.split(), layer.getchannel("A")))
    pixels = PIL.Image.new("RGB", layer.size, _paper(layer))
    pixels.paste(layer, mask=layer.getchannel("A"))
    return pixels


def _paper(layer: Pixels) -> tuple[int, int, int]:
    """The background for a transparent picture: white, or dark gray if more than half of its visible area is nearly
    white and would disappear on white."""
    import numpy as np
    import PIL.Image

    small = layer.resize([min(n, 256) for n in layer.size], PIL.Image.Resampling.BOX)  # thin lines stay, only fainter
    levels = np.asarray(small).astype(np.float64)
    seen = levels[..., 3]
    nearly_white = levels[..., :3].min(axis=2) >= 224
    return (64, 64, 64) if seen[nearly_white].sum() > seen.sum() / 2 else (255, 255, 255)


def _srgb(pixels: Pixels, profile: bytes | None) -> Pixels:
    """Convert to sRGB, because the file's profile is not kept: wide-gamut RGB (photos of newer phones), gray and CMYK.
    Falls back to Pillow's plain conversion if the profile is unusable or of another kind, or if Pillow has no colour
    management."""
    plain = pixels if pixels.mode == "RGB" else pixels.convert("RGB")
    if not profile:
        return plain
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space == "GRAY" and pixels.mode in ("1", "L"):
            plain = pixels.convert("L")
        elif space == "CMYK" and pixels.mode == "CMYK":
            plain = pixels
        elif space != "RGB" or pixels.mode == "CMYK":
            return plain
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(plain, source, target, outputMode="RGB") or plain.convert("RGB")
    except (ImageCms.PyCMSError, ImportError, *_BROKEN):
        return plain.convert("RGB")


def encode(pixels: Pixels, kind: str) -> bytes:
    """Encode `pixels` as "PNG" or "JPEG", without metadata."""
    out = io.BytesIO()
    bare = pixels.copy()
    bare.info = {}  # Pillow would write some of it into the file
    if kind == "PNG":
        bare.save(out, "PNG")
    else:  # no chroma subsampling: coloured letters and thin lines stay readable
        bare.save(out, "JPEG", quality=settings.IMAGE_JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def _is_plain(data: bytes, kind: str) -> bool:
    """Whether the file is upright RGB and contains only pixels: no metadata, profile, preview or trailing data."""
    if kind == "PNG":
        return _is_plain_png(data)
    return kind == "JPEG" and _is_plain_jpeg(data)


def _is_plain_png(data: bytes) -> bool:
    place, names = 8, set()
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if name == b"IHDR" and data[place + 16 : place + 18] != b"\x08\x02":  # 8 bits, RGB
            return False
        names.add(name)
        place += 12 + length
        if name == b"IEND":
            break
    return place == len(data) and names == {b"IHDR", b"IDAT", b"IEND"}


def _is_plain_jpeg(data: bytes) -> bool:
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xE0:
            if length != 16 or data[place + 4 : place + 9] != b"JFIF\0":
                return False
        elif marker in (0xC0, 0xC1, 0xC2):
            if data[place + 9] != 3:  # colour components; three in JFIF are YCbCr
                return False
        elif marker not in (0xC4, 0xDB, 0xDD, 0xDA):  # Huffman and quantisation tables, restarts, scan
            return False
        place += 2 + length
        if marker == 0xDA:  # coded pixels follow, in which FF is followed by 00 or a restart marker
            while place + 1 < len(data) and (data[place] != 0xFF or data[place + 1] in (0, *range(0xD0, 0xD8))):
                place = data.find(b"\xff", place + 1)
                if place < 0:
                    return False
            if data[place : place + 2] == b"\xff\xd9":
                return place + 2 == len(data)
    return False
