"""What a cell measures over what it must cost: a ratio of two means, paired by chunk.

The denominator is the same figure of an emulated healthy cell on the same tokens, so that what is
hard about a chunk is in both and cancels. The interval of the ratio is Fieller's (1954, "Some
problems in interval estimation", JRSS-B 16): the values B for which the chunk differences x − B·y
have a mean that a t test at this level does not tell from zero. Looks share alpha equally, as for
the other intervals of a run, so that it is valid at each of them.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics import stats
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.stats import Interval

LIMIT = 1.10
"""The most that a healthy cell may cost over its emulation, and at least 1/1.10, where the interval
permits to say so. Seen on healthy builds: 0.97 to 1.05."""

WIDEST = 1.30
"""The limit where chunks scatter too much for 1.10."""

SHARE = 0.7
"""Of the distance to the limit, what the interval's half width may take: with 32 chunks that
scatter by 10 % that is 1.10."""

LEAST = 3
"""Chunks from which on an interval decides."""


CHANCE = 0.025
"""One-sided level of what one rounding more may differ from those that were emulated."""


def drawn_limit(means: npt.ArrayLike, limit: float = LIMIT, widest: float = WIDEST) -> float:
    """The limit where several emulations, as likely as each other, differ from one to the next.

    The cell is one draw more: the logarithm of its mean over theirs scatters by s·√(1 + 1/n), with
    s their own standard deviation (a prediction interval).

    Args:
        means: mean figure of each emulation, shape ``(n,)``, over the same chunks.
    """
    logs = np.log(np.maximum(np.asarray(means, np.float64), 1e-300))
    if logs.size < 2:
        return limit
    reach = stats.t_quantile(CHANCE, logs.size) * logs.std(ddof=1) * math.sqrt(1 + 1 / logs.size)
    return min(widest, max(limit, math.exp(min(reach, 1.0))))


class Ratio(NamedTuple):
    """A ratio and what is said of it."""

    verdict: Literal["pass", "fail", "inconclusive"]
    figure: float
    """Sum over chunks of the cell's figure over the sum of the healthy one's."""
    low: float
    """Lower end of its interval; −inf where it has none."""
    high: float
    limit: float
    """It passes where the interval lies within 1/limit to limit."""
    p_value: float
    """Evidence for a ratio outside of 1/1.10 to 1.10, all looks counted."""
    decided_at: int | None
    """Chunks at which the verdict fell."""
    chunks: int
    """Chunks looked at."""


def judge(
    measured: npt.ArrayLike,
    healthy: npt.ArrayLike,
    *,
    looks: tuple[int, ...],
    level: float,
    planned: int | None = None,
    floor: float = 0.0,
    limit: float = LIMIT,
    widest: float = WIDEST,
    two_sided: bool = True,
) -> Ratio:
    """The verdict of the first look that decides.

    Args:
        measured: the cell's figure of each chunk, shape ``(n,)``, non-negative.
        healthy: of its emulation, same chunks in the same order.
        looks: chunk counts at which an interval may speak, ascending.
        level: error of each end of the interval at one look.
        planned: among how many looks alpha is shared, where a cap leaves fewer of them.
        floor: what the machine's noise adds to ``measured`` without any fault, in its unit.
        limit, widest: see :data:`LIMIT` and :data:`WIDEST`.
        two_sided: whether too small a ratio is a fault too.

    Raises:
        ValueError: the two are not of the same chunks, or not finite.
    """
    x, y = stats.chunk_figures(measured), stats.chunk_figures(healthy)
    if x.shape != y.shape:
        raise ValueError("the cell and its emulation must come from the same chunks")
    rule = _RatioRule(level, planned or len(looks), floor, limit, widest, two_sided)
    taken = [n for n in looks if LEAST <= n <= x.size]
    for n in taken:
        verdict = _speaks(x[:n], y[:n], rule, last=n == looks[-1])
        if verdict is not None:
            return _told(verdict, x, y, n, taken, rule)
    return _told("inconclusive", x, y, None, taken, rule)


def interval(measured: F64, healthy: F64, level: float) -> Interval:
    """The ratio of means and Fieller's interval, ±inf where it is unbounded."""
    n = measured.size
    x, y = float(measured.mean()), float(healthy.mean())
    if y <= 0:
        return Interval(math.inf if x > 0 else 1.0, -math.inf, math.inf)
    if n < 2:
        return Interval(x / y, -math.inf, math.inf)
    t2 = stats.t_quantile(level, n) ** 2 / n
    (xx, xy), (_, yy) = np.cov(measured, healthy).tolist()
    a, b, c = y * y - t2 * yy, x * y - t2 * xy, x * x - t2 * xx
    inside = b * b - a * c
    if a <= 0 or inside < 0:
        return Interval(x / y, -math.inf, math.inf)
    root = math.sqrt(inside)
    return Interval(x / y, (b - root) / a, (b + root) / a)


def allowed(now: Interval, limit: float = LIMIT, widest: float = WIDEST) -> float:
    """The limit that an interval of this width permits."""
    half = (now.high - now.low) / 2
    if not math.isfinite(half):
        return widest
    return min(widest, max(limit, 1 + half / SHARE))


class _RatioRule(NamedTuple):
    level: float
    planned: int
    floor: float
    limit: float
    widest: float
    two_sided: bool


def _speaks(x: F64, y: F64, rule: _RatioRule, *, last: bool) -> Literal["pass", "fail"] | None:
    """What one look says; ``None``: nothing yet.

    At the last one an interval that permits no limit may reach as far as the widest, if the ratio
    itself is within the limit: there are no more chunks to wait for, and beyond the widest nothing
    passes but by the level's chance.
    """
    if not y.any():  # a type as fine as f16: there is nothing that its rounding costs
        if x.max() <= rule.floor:
            return "pass"
        return "fail" if stats.t_interval(x, rule.level).low > rule.floor else None
    over = interval(np.maximum(x - rule.floor, 0), y, rule.level)
    under = interval(x + rule.floor, y, rule.level)
    if over.low > rule.limit or (rule.two_sided and under.high < 1 / rule.limit):
        return "fail"
    most = allowed(over, rule.limit, rule.widest)
    if last and _within(over.figure, rule.limit, rule) and _within(under.figure, rule.limit, rule):
        most = rule.widest
    low_enough = over.high <= most
    high_enough = under.low >= 1 / most or not rule.two_sided
    return "pass" if low_enough and high_enough else None


def _within(figure: float, limit: float, rule: _RatioRule) -> bool:
    return figure <= limit and (figure >= 1 / limit or not rule.two_sided)


def _told(
    verdict: Literal["pass", "fail", "inconclusive"],
    x: F64,
    y: F64,
    at: int | None,
    taken: list[int],
    rule: _RatioRule,
) -> Ratio:
    seen = x.size if at is None else at
    now = interval(x[:seen], y[:seen], rule.level)
    counted = [n for n in taken if at is None or verdict == "fail" or n <= at]
    each = (_p_value(x[:n], y[:n], rule) for n in counted)
    p = min(1.0, rule.planned * min(each, default=1.0))  # looks to come have their share too
    most = allowed(now, rule.limit, rule.widest)
    return Ratio(verdict, now.figure, now.low, now.high, most, p, at, x.size)


def _p_value(x: F64, y: F64, rule: _RatioRule) -> float:
    """The smaller one-sided p of "at most the limit" and "at least its inverse"."""
    over = stats.one_sided_p(x - rule.limit * y - rule.floor)
    if not rule.two_sided:
        return over
    return min(over, stats.one_sided_p(y / rule.limit - x - rule.floor))
