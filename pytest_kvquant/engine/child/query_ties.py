"""Child side: elements of a query in the middle between two levels, as a kernel rounded them.

There the order of the same arithmetic decides, which no model of it knows; the output does. All
other elements can be rounded one way only.
"""

from __future__ import annotations

import itertools

import numpy as np

from pytest_kvquant.engine.child.attention_inputs import Operands
from pytest_kvquant.engine.child.attention_noise import Taken
from pytest_kvquant.numerics import attention
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.query_rounding import BLOCK

TIE = 2e-4
"""Of a step: nearer to the middle than this, arithmetic in f32 decides (127 steps, two roundings
and an approximate division: 127 · 2⁻²¹ is 6e-5)."""

MOST_TIES = 6
"""Of a query, the nearest ones: all their combinations are tried. One element in 2,500 is tied."""


def settled(taken: Taken, given: Operands) -> Taken | None:
    """Queries with each tied element on that side which brings the output nearest.

    ``None`` where no element is tied, or queries are not rounded to levels.
    """
    if taken.with_levels is None or given.q.shape[1] % BLOCK:
        return None
    exact = _levels(given.q)
    below = np.floor(exact)
    apart = np.abs(exact - below - 0.5)
    known = np.full_like(exact, np.nan)
    for row in np.flatnonzero((apart < TIE).any(axis=1)):
        tied = [at for at in np.argsort(apart[row])[:MOST_TIES] if apart[row, at] < TIE]
        errors = {}
        for up in itertools.product((0.0, 1.0), repeat=len(tied)):
            known[row, tied] = np.sign(given.q[row, tied]) * (below[row, tied] + up)
            q, k = taken.with_levels(known)
            one = attention.attend(q[[row]], k, given.v, given.mask[[row]], given.how)
            errors[up] = float(np.square(one.out[0] - given.out[row]).sum())
        nearest = min(errors, key=errors.__getitem__)
        known[row, tied] = np.sign(given.q[row, tied]) * (below[row, tied] + nearest)
    return None if np.isnan(known).all() else Taken(*taken.with_levels(known))


def _levels(q: F64) -> F64:
    """Of each element without its sign, before they are rounded."""
    blocks = np.abs(q).reshape(len(q), -1, BLOCK)
    steps = blocks.max(axis=2, keepdims=True) / 127
    levels = np.divide(blocks, steps, out=np.zeros_like(blocks), where=steps > 0)
    return np.asarray(levels.reshape(q.shape), np.float64)
