"""How right each digit is where a fraction of the picture is written with two of them.

In: an edge of a box. Out: the shares of each tenth and hundredth, as arrays. No eye sees an edge to the hundredth of a
picture, and what is one off is hardly wrong: digits that are near count too. Without that, most of what hundredths
teach is chance, and it drowns all else.
This file does not know pictures or tokens.
"""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

TENTHS, HUNDREDTHS = 11, 10  # how many there are of each; 1.00 has ten tenths
SPREAD = 1.0  # standard deviation in hundredths: about what well-taught eyes err by


def _hundredths(edge: float) -> NDArray[np.float32]:
    """The share (11, 10) of each tenth and hundredth: a normal distribution around `edge`, rounded."""
    steps = np.arange(TENTHS * HUNDREDTHS + 1) - 0.5
    below = np.array([0.5 + 0.5 * erf((step - 100 * edge) / SPREAD / sqrt(2)) for step in steps])
    return np.diff(below).reshape(TENTHS, HUNDREDTHS).astype(np.float32)


_TABLE = np.stack([_hundredths(i / 1000) for i in range(1001)])


def shares(edge: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of tenths (11,) and, whatever the tenth is, of hundredths (10,); each sums to 1."""
    both = _TABLE[round(edge * 1000)]
    return both.sum(1) / both.sum(), both.sum(0) / both.sum()


def hundredths_behind(edge: float, tenth: int) -> NDArray[np.float32]:
    """Of hundredths (10,) behind a tenth that is written already."""
    behind: NDArray[np.float32] = _TABLE[round(edge * 1000)][tenth]
    return behind / behind.sum()
