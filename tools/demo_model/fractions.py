"""How right each hundredth is where an edge of a box is written.

In: an edge. Out: the share of each hundredth, as an array. No eye sees an edge to the hundredth of a picture, and what
is one off is hardly wrong: near ones count too. Without that, most of what is taught is chance, and drowns all else.
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
    """Of 0.00 to 0.99 (100,): a normal distribution around `edge`, rounded; it sums to 1."""
    return _around(round(edge * 1000))
