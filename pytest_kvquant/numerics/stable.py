"""Differences of functions where their terms cancel."""

from __future__ import annotations

import numpy as np

from pytest_kvquant.numerics.arrays import F64

FAR = 30.0
"""From this ln of a ratio of Z on, KL is above 17 whatever the vocabulary: nothing cancels."""


def log1p_less(convex: F64, rest: F64) -> F64:
    """log1p(convex + rest) − rest; by its Taylor series where the two would cancel."""
    z = convex + rest
    near = np.abs(z) < 0.01
    small = np.where(near, z, 0.0)
    series = np.zeros_like(small)
    for n in range(9, 1, -1):
        series = small * series + (-1.0) ** (n - 1) / n
    return np.where(near, convex + series * small * small, np.log1p(z) - rest)
