"""Edit a picture before it is sent (rotate, crop), and preview it as the model sees it.

In: the bytes of a picture. Out: the bytes of a new one in the same format, as input for `images.prepare`.
This file does not know conversations or front ends.
"""

from __future__ import annotations

from impchat import images
from impchat.images import Aspect
from impchat.images.boxes import Box


def turn(data: bytes, quarters: int) -> bytes:
    """Rotate the picture clockwise by `quarters` x 90 degrees. Raises ImageError as `images.prepare`."""
    import PIL.Image

    turns = PIL.Image.Transpose
    how = (None, turns.ROTATE_270, turns.ROTATE_180, turns.ROTATE_90)[quarters % 4]
    pixels = images.decode(data)
    return images.encode(pixels if how is None else pixels.transpose(how), _kind(data))


def cut(data: bytes, part: Box) -> bytes:
    """Crop the picture to `part`. Raises ImageError as `images.prepare`."""
    pixels = images.decode(data)
    return images.encode(pixels.crop(part.pixels(*pixels.size)), _kind(data))


def seen(data: bytes, size: int, aspect: Aspect) -> bytes:
    """The picture as a model with an input of `size` pixels sees it, as PNG. Raises ImageError as `images.prepare`."""
    import numpy as np
    import PIL.Image

    half = (0.5, 0.5, 0.5)  # maps values to -1..1
    values = images.model_input(data, size, aspect, half, half)[0].transpose(1, 2, 0)
    levels = np.clip((values + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)
    return images.encode(PIL.Image.fromarray(levels), "PNG")


def _kind(data: bytes) -> str:
    """The format to encode in: drawings stay lossless."""
    return "PNG" if data.startswith(b"\x89PNG") else "JPEG"
