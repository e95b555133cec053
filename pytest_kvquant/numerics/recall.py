"""What is gained from having read a passage before: by the reference, by a cell, and whether the
cell keeps enough of it. Numbers in, numbers out.

The unit is the passage. Its gain is the mean NLL of its tokens where they are read first less that
where they are read again, in nats; reference and cell read the same passages, so what is judged is
paired: the cell fails by d = gain(cell) − keep · gain(reference), and passes by the interval of
gain(cell) / gain(reference), whose width is what the two scatter apart from each other.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.stats import stdtrit

LEAST_GAIN = 0.5
"""Nats a token: a reference that gains less does not recall, whatever its error."""

NO_GAIN = 0.05
"""Error of calling it a gain where there is none."""

RecallVerdict = Literal["pass", "fail", "inconclusive", "cannot"]


class Judged(NamedTuple):
    """A distance, judged."""

    verdict: RecallVerdict
    """``cannot``: the reference itself gains nothing there, so that nothing is judged."""
    kept: float | None
    """Share of the reference's gain that the cell keeps; ``None`` where there is none."""
    low: float | None
    high: float | None
    """Ends of the interval of ``kept``, each with the error that was allowed."""


def judge(reference: F64, cell: F64, *, keep: float, alpha: float) -> Judged:
    """Whether a cell keeps the share ``keep`` of what the reference gains at one distance.

    Args:
        reference, cell: gain of each passage, nats a token, shape ``(n,)``.
        keep: least share to be kept, 0..1.
        alpha: error of each side.
    """
    mean = float(reference.mean())
    if mean - _reach(reference, NO_GAIN) <= 0 or mean < LEAST_GAIN:
        return Judged("cannot", None, None, None)
    kept = float(cell.mean()) / mean
    if not np.isfinite(cell).all():
        return Judged("fail", None, None, None)
    reach = _reach(cell - kept * reference, alpha) / mean
    apart = cell - keep * reference
    middle, allowance = float(apart.mean()), _reach(apart, alpha)
    verdict: RecallVerdict = "inconclusive"
    # By the interval of the share itself: d of a healthy cell scatters with the reference's gains,
    # and over half of the pairs of a matrix eight passages did not tell 97 % from 80 %.
    if kept - reach >= keep:
        verdict = "pass"
    elif middle < -allowance:
        verdict = "fail"
    return Judged(verdict, kept, kept - reach, kept + reach)


def _reach(values: F64, alpha: float) -> float:
    """One side of a t interval around the mean; infinite for fewer than two values."""
    if len(values) < 2:
        return math.inf
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return stdtrit(len(values) - 1, 1 - alpha) * error
