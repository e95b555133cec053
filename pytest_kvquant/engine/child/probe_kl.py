"""Child side: KL of a few rows of logits, without the compiled loops."""

from __future__ import annotations

import math

import numpy as np

from pytest_kvquant.numerics.arrays import F32, F64

LOGIT_ROWS = 8
"""Last tokens of each path whose logits are compared."""

SMALL = 0.01
FAR = 600.0
"""Differences of logits up to which e^d − 1 − d is taken from its series, and to which e^d is taken
at all."""


def kl(cell: F32, reference: F32) -> float:
    """Mean KL(reference ‖ cell) over rows of logits, in nats.

    Without cancellation, and −inf a masked token, as in :mod:`pytest_kvquant.numerics.kernels`,
    which this process does not import: compiling that takes longer than these few rows.
    """
    wide = (np.asarray(logits, np.float64) for logits in (reference, cell))
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.mean([_kl(x, y) for x, y in zip(*wide, strict=True)]))


def _kl(x: F64, y: F64) -> float:
    """KL of one row from log Σ e^x and log Σ e^y where it is large, else as Σ p·(e^d − 1 − d)."""
    if not (np.isfinite(x.max()) and np.isfinite(y.max())):
        return math.nan  # NaN, +inf, or nothing but masked tokens
    seen = x > -np.inf
    if (y[seen] == -np.inf).any():
        return math.inf
    log_p, log_q = (row - np.logaddexp.reduce(row) for row in (x, y))
    p = np.exp(log_p[seen])
    d = (y - x)[seen]
    d -= d[x[seen].argmax()]
    d -= (p * d).sum()
    if d.max() > FAR:
        return float((p * (log_p - log_q)[seen]).sum())
    hidden, left = (float(np.exp(log_q[which]).sum()) for which in (~seen, seen))
    # What the reference alone masks takes its share of the cell's probability.
    share = -math.log1p(-hidden) if hidden < left else -math.log(left)
    series = d * d * (0.5 + d * (1 / 6 + d * (1 / 24 + d * (1 / 120 + d * (1 / 720)))))
    convex = np.where(np.abs(d) < SMALL, series, np.expm1(d) - d)
    return math.log1p(float((p * convex).sum())) + share


def kl_by_path(cell: F32, reference: F32, prompt: int, singles: int) -> dict[str, float]:
    """Mean KL of the logits of a :class:`Run`, by path; only paths that the run took."""
    split = min(prompt, LOGIT_ROWS)
    found = {"prefill": kl(cell[:split], reference[:split])} if split else {}
    return found | ({"decode": kl(cell[split:], reference[split:])} if singles else {})
