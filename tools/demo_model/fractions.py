"""Soft targets for the hundredths of box edges.

In: an edge. Out: the weight of each hundredth, as an array. No vision tower resolves an edge to a hundredth of the
picture, and being off by one is hardly wrong, so near values count too. Otherwise most of the loss would be noise.
This file does not know pictures or tokens.
"""

from __future__ import annotations

from functools import cache
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

SPREAD = 1.5  # standard deviation in hundredths


@cache
def _around(thousandths: int) -> NDArray[np.float32]:
    steps = np.arange(101) - 0.5
    below = np.array([erf((step - thousandths / 10) / SPREAD / sqrt(2)) for step in steps])
    within = np.diff(below)
    shares: NDArray[np.float32] = (within / within.sum()).astype(np.float32)
    return shares


def shares(edge: float) -> NDArray[np.float32]:
    """Weights (100,) of 0.00 to 0.99: a normal distribution around `edge`, rounded; the sum is 1."""
    return _around(round(edge * 1000))
