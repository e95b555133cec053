"""Times by depth in, the depth from which on another kernel works out, as data.

A token's time grows with the depth d as a + b·d, that of f16 as a' + b'·d. The logarithm of their
ratio is then concave where it rises, and falls else: what it rose from one window of depths to the
next, it rises at most once more. A kernel that is slower beyond some depth breaks that, whatever
the healthy ratio is: no floor is needed, and none of another machine would help.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WINDOW = 2
"""Depths of each of the three windows that are compared."""

LEAST = 1.35
"""A rise beyond the expected one by this factor is a kink: a kernel that takes twice the time has 2
where attention is all of it, 1.35 where it is a third."""

CLEAR = 1.15
"""By so much depths behind the kink are over every depth right before it."""

BEHIND = 8
"""Depths behind it that are looked at, as far as there are any: a kernel stays slow, a machine that
was busy does not."""

STRAY = 6
"""One in so many of them may be another's doing."""


class Kink(NamedTuple):
    """Where it is, and how large."""

    depth: int
    """The first depth that is slow."""
    factor: float
    """Times what the depths before let expect."""


def find(depths: Sequence[int], cell: Sequence[float], reference: Sequence[float]) -> Kink | None:
    """The largest kink of a cell that f16 does not have.

    Args:
        depths: ascending.
        cell, reference: time of a token at each of them, in any unit, above 0.
    """
    rise = np.log(np.asarray(cell, np.float64)) - np.log(np.asarray(reference, np.float64))
    best: Kink | None = None
    for at in range(2 * WINDOW, len(rise) - WINDOW + 1):
        first, before, behind = (
            rise[start : start + WINDOW] for start in (at - 2 * WINDOW, at - WINDOW, at)
        )
        expected = before.mean() + max(0.0, float(before.mean() - first.mean()))
        factor = math.exp(float(behind.mean() - expected))
        after = np.sort(rise[at : at + BEHIND])
        clear = after[len(after) // STRAY] - before.max() > math.log(CLEAR)
        if clear and factor >= LEAST and (best is None or factor > best.factor):
            best = Kink(depths[at], factor)
    return best
