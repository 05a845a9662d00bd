"""Whether small print in a picture is lost at the size of a model's input, for a hint before sending.

In: stored bytes, and the size and aspect of the input. Out: yes or no.
The rule: the picture is reduced to the input and enlarged again. A small part of it shows print if at least half of it
is flat paper and some of it is ink that differs clearly, which sets print apart from grass, hair and noise. Print is
lost if at least half of the part's contrast is gone. `python -m benchmarks.small_print` measures it
(docs/benchmarks.md).
This file does not know letters: thin lines of a plan or a diagram count as print too.
"""

from __future__ import annotations

from impchat import images
from impchat.images import Aspect

_SIDE = 768  # the longest side at which people look at a picture
_PART = 24  # pixels of that
_PAPER = 20  # most levels of gray between paper and the part's median
_INK = 48  # least levels of gray between ink and the part's median
_PAPER_SHARE, _INK_SHARE = 0.5, 0.04  # of the pixels of a part, at least
_LOST = 0.5  # share of a part's contrast (standard deviation) that is gone, at least
_PARTS = 0.015  # share of the parts whose print is lost, at least, for a hint


def loses_small_print(data: bytes, size: int, aspect: Aspect = "square") -> bool:
    """Whether a model with an input of `size` pixels cannot read print that a person can read in the picture.

    False for print that is blurred in the picture itself: cutting out a part would not help. Takes about as long as a
    thumbnail. Raises ImageError as `images.prepare`."""
    return lost_share(data, size, aspect) >= _PARTS


def lost_share(data: bytes, size: int, aspect: Aspect = "square") -> float:
    """The share of the picture's area, 0 to 1, that shows print which is lost. Raises ImageError as
    `images.prepare`."""
    import numpy as np
    from PIL.Image import Resampling

    pixels = images.decode(data, _SIDE).convert("L")
    if min(pixels.size) < _PART:
        return 0.0
    longest = max(pixels.size)  # "pad" keeps the aspect
    reduced = [max(1, round(side * size / longest)) if aspect == "pad" else size for side in pixels.size]
    back = pixels.resize((reduced[0], reduced[1]), Resampling.BICUBIC).resize(pixels.size, Resampling.BICUBIC)

    down, across = pixels.height // _PART, pixels.width // _PART

    def parts(values: np.ndarray) -> np.ndarray:
        """float32 (parts, pixels of a part)"""
        cut = values[: down * _PART, : across * _PART].reshape(down, _PART, across, _PART)
        return cut.transpose(0, 2, 1, 3).reshape(down * across, _PART * _PART)

    levels = np.asarray(pixels, dtype=np.float32)
    before = parts(levels)
    gone = parts(levels - np.asarray(back, dtype=np.float32))
    distance = np.abs(before - np.median(before, axis=1, keepdims=True))
    print_ = ((distance <= _PAPER).mean(axis=1) >= _PAPER_SHARE) & ((distance > _INK).mean(axis=1) >= _INK_SHARE)
    lost = gone.std(axis=1) >= _LOST * np.maximum(before.std(axis=1), 1)
    return float((print_ & lost).mean())
