"""The parts of a picture file that are needed to decode it; all others are removed before a decoder reads the file.

In: the bytes of a PNG, JPEG or WebP file. Out: the bytes to decode. Metadata are dropped anyway, so nothing in them (a
wrong checksum, a text of many megabytes, a truncated end) may use memory or make a complete picture unusable. The
picture data are kept as they are, damage included.
This file does not know how pictures are decoded.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from dataclasses import dataclass, field

from impchat import settings


@dataclass(frozen=True, slots=True)
class Parts:
    """The bytes to decode, and what the decoder needs to know about them."""

    data: bytes = field(repr=False)
    profile: bytes | None = None  # the ICC profile of a PNG, which is not in `data`
    one_scan: bool = False  # a JPEG that can be decoded at reduced size, without holding all its pixels
    # Only for a JPEG without an end marker, whose missing pixels decoders fill in silently: the same file with
    # different data at its end. The picture is complete if both decode to the same pixels.
    probe: bytes | None = field(default=None, repr=False)


def parts(data: bytes, kind: str) -> Parts:
    """The parts of `data`, a file of the format `kind`. Raises ValueError if picture data of a PNG are damaged."""
    if kind == "PNG":
        return _png(data)
    if kind == "JPEG":
        return _jpeg(data)
    if kind == "WEBP":
        return Parts(_webp(data))
    return Parts(data)


_PNG_TURNS = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # keywords of texts that may hold the orientation
_PNG_TRANSPARENT = {0: 2, 2: 6, 3: 1}  # colour type in the header -> minimum bytes of the transparent colour
_TEXT_BYTES = 2**20  # limit for such a text, decompressed; the same as Pillow's


def _png(data: bytes) -> Parts:
    """Keep the critical chunks, the transparent colour and the orientation; return the ICC profile separately.

    A complete critical chunk with a wrong checksum raises ValueError; other damaged chunks are dropped."""
    if len(data) < 33:  # signature and header
        raise ValueError("no header")
    view = memoryview(data)
    kept: list[bytes | memoryview] = [view[:8]]
    profile = None
    place = 8
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        whole = end <= len(data)
        intact = whole and zlib.crc32(view[place + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")
        body = view[place + 8 : end - 4]
        if not name[0] & 0x20:  # uppercase letter: critical
            if whole and not intact and name != b"IEND":
                raise ValueError(f"wrong checksum of {name!r}")
            kept.append(view[place:end])
        elif not intact:
            pass
        elif name == b"eXIf" or (name == b"tRNS" and length >= _PNG_TRANSPARENT.get(data[25], 257)):
            kept.append(view[place:end])
        elif name == b"iCCP" and profile is None:
            _, _, packed = bytes(body).partition(b"\0")
            profile = _unpacked(packed[1:], settings.IMAGE_PROFILE_BYTES)
        elif name in (b"tEXt", b"zTXt", b"iTXt") and bytes(body[:80]).partition(b"\0")[0] in _PNG_TURNS:
            key, text = _text(name, bytes(body))
            if text is not None:
                kept.append(_chunk(b"tEXt", key + b"\0" + text))
        if name == b"IEND":
            break
        place = end
    return Parts(b"".join(kept), profile)


def _text(name: bytes, body: bytes) -> tuple[bytes, bytes | None]:
    """Keyword and text of a tEXt, zTXt or iTXt chunk; the text is None if it is unreadable or too long."""
    key, _, rest = body.partition(b"\0")
    packed = name == b"zTXt"
    if name == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = b"\0" + rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # skip language and translated keyword
    if name != b"tEXt":
        rest = rest[1:]
    if packed:
        return key, _unpacked(rest, _TEXT_BYTES)
    return key, rest if len(rest) <= _TEXT_BYTES else None


def _unpacked(packed: bytes, limit: int) -> bytes | None:
    """Decompress zlib data; None if they are broken or longer than `limit` bytes. Decompresses at most `limit` + 1
    bytes."""
    try:
        unpacked = zlib.decompressobj().decompress(packed, limit + 1)
    except zlib.error:
        return None
    return unpacked if 0 < len(unpacked) <= limit else None


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


_JPEG_KEPT = (  # marker, first bytes and minimum length of the application segments that matter
    (0xE0, b"JFIF\0", 14),  # JFIF and Adobe define the colour space of the components
    (0xE1, b"Exif\0\0", 14),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0", 29),  # may hold the orientation
    (0xE2, b"ICC_PROFILE\0", 15),
    (0xEE, b"Adobe", 12),
)
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # ends a scan; FF 00 and restart markers do not
_END = b"\xff\xd9"
_PIECE = bytes(byte for byte in random.Random(1).randbytes(512) if byte != 0xFF)
# Fills whatever a scan lacks, even if it was truncated at one of the eight restart markers.
_MORE_SCAN = _PIECE + b"".join(bytes((0xFF, 0xD0 + n % 8)) + _PIECE for n in range(16))


def _jpeg(data: bytes) -> Parts:
    """Keep only the application segments that are used, drop comments, and add a missing end marker."""
    kept = [data[:2]]
    layers: list[int] = []  # component ids
    seen: dict[int, set[int]] = {}  # component -> coefficients that scans have completed
    progressive = one_scan = False
    place = first_scan = 2
    while True:
        while data[place : place + 2] == b"\xff\xff":  # fill bytes
            place += 1
        marker, length = data[place + 1 : place + 2], int.from_bytes(data[place + 2 : place + 4], "big")
        end = place + 2 + length
        body = data[place + 4 : end]
        lone = not marker or marker[0] in (0x00, 0x01, *range(0xD0, 0xDA))  # marker without a length
        if data[place : place + 1] != b"\xff" or lone or length < 2 or end > len(data):
            if not seen:
                return Parts(data)  # no picture data so far: leave it to the decoder
            break
        if marker[0] in range(0xC0, 0xD0) and marker[0] not in (0xC4, 0xC8, 0xCC):
            layers = list(body[6::3])
            progressive = marker[0] in (0xC2, 0xC6, 0xCA, 0xCE)
        if marker[0] != 0xDA:
            metadata = marker[0] == 0xFE or marker[0] in range(0xE0, 0xF0)
            if not metadata or any(marker[0] == m and body.startswith(b) and len(body) >= n for m, b, n in _JPEG_KEPT):
                kept.append(data[place:end])
            place = end
            continue
        if not body or len(body) < 2 * body[0] + 4:
            return Parts(data)
        components, (start, stop, approximation) = body[1 : 1 + 2 * body[0] : 2], body[-3:]
        if not seen:
            first_scan = place
            one_scan = not progressive and len(components) == len(layers)
        for component in components:
            found = seen.setdefault(component, set())
            if not progressive:
                found.update(range(64))
            elif approximation & 15 == 0:
                found.update(range(start, stop + 1))
        following = _NEXT_MARKER.search(data, end)
        place = following.start() if following else len(data)
        if data[place : place + 2] == _END:
            return Parts(b"".join(kept) + data[first_scan:], one_scan=one_scan)
        if following is None:
            break
    if _END in data[place:]:
        return Parts(b"".join(kept) + data[first_scan:])
    scans = data[first_scan:place]
    # Failed downloads leave zeros; the last one or two bytes of a complete scan may be zeros as well.
    bare = scans[: len(scans.rstrip(b"\0")) + 2].removesuffix(b"\xff")
    head = b"".join(kept)
    if not all(len(seen.get(layer, ())) == 64 for layer in layers):
        return Parts(head + bare)
    return Parts(head + bare + _END, one_scan=one_scan, probe=head + bare + _MORE_SCAN + _END)


_WEBP_PICTURE = (b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF")
_WEBP_METADATA = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}  # and their flags in VP8X


def _webp(data: bytes) -> bytes:
    """Keep the file's known chunks; truncated metadata and truncated later frames are dropped."""
    kept: list[bytes] = []
    flags = 0
    place = 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        if not name.replace(b" ", b"").isalnum():  # garbage: a damaged chunk, or data after the file
            if place < 8 + int.from_bytes(data[4:8], "little"):
                return data
            break
        chunk = data[place : place + 8 + length]
        whole = len(chunk) == 8 + length
        first = name != b"ANMF" or not any(c.startswith(b"ANMF") for c in kept)
        if (name in _WEBP_PICTURE and (whole or first)) or (name in _WEBP_METADATA and whole):
            kept.append(chunk + b"\0" * (len(chunk) % 2 if whole else 0))
            flags |= _WEBP_METADATA.get(name, 0)
        place += 8 + length + length % 2
    if kept and kept[0][:4] == b"VP8X" and len(kept[0]) > 8:
        others = kept[0][8] & ~sum(_WEBP_METADATA.values())
        kept[0] = kept[0][:8] + bytes((others | flags,)) + kept[0][9:]
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
