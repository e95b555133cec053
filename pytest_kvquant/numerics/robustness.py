"""How much more a cell strays on disturbed text than on the same text as it is."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pytest_kvquant.numerics.arrays import F64


class RatioJudged(NamedTuple):
    """The ratio of two mean KLs on paired chunks, against the most that it may be."""

    verdict: Literal["pass", "fail", "inconclusive"]
    ratio: float | None
    low: float | None
    high: float | None


def judge_ratio(clean: F64, disturbed: F64, *, most: float, alpha: float) -> RatioJudged:
    """Judge mean(disturbed) / mean(clean).

    A t test on d = disturbed − most · clean, chunk by chunk, decides; the interval is that of the
    linearized ratio.

    Args:
        clean, disturbed: mean KL of each chunk, shape ``(n,)``.
        alpha: error of each side.
    """
    middle = float(clean.mean())
    if middle <= 0 or len(clean) < 2:
        nothing = bool((disturbed <= 0).all())
        return RatioJudged("pass" if nothing else "inconclusive", None, None, None)
    from scipy import stats

    quantile = float(stats.t.ppf(1 - alpha, len(clean) - 1))

    def reach(values: F64) -> float:
        return quantile * float(values.std(ddof=1)) / math.sqrt(len(values))

    ratio = float(disturbed.mean()) / middle
    apart = disturbed - most * clean
    verdict: Literal["pass", "fail", "inconclusive"] = "inconclusive"
    if float(apart.mean()) <= -reach(apart):
        verdict = "pass"
    elif float(apart.mean()) > reach(apart):
        verdict = "fail"
    around = reach(disturbed - ratio * clean) / middle
    return RatioJudged(verdict, ratio, ratio - around, ratio + around)
