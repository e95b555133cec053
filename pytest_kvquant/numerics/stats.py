"""Intervals and sequential evidence for figures whose unit is the chunk.

Every function takes one figure per chunk (or per speed round), in the order in which the chunks
were drawn, and knows nothing of gates or verdicts. `level` always means the error allowed at
*one* end of an interval at *one* look; how an alpha is shared among looks is the caller's rule.

Sources:
    Ville (1939), Étude critique de la notion de collectif: a non-negative martingale that starts
        at 1 ever reaches 1/alpha with probability at most alpha.
    Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting,
        JRSS-B 86(1): the betting e-value and its mixture over stakes.
    Clopper & Pearson (1934), Biometrika 26: the exact binomial interval.
    Kish (1965), Survey Sampling: the design effect of cluster samples.
    Holm (1979), Scand. J. Statist. 6: the step-down test of a family.

Quantiles come from `scipy.special`, whose ufuncs `scipy.stats` itself calls: same numbers, a
quarter of the import time.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import F64

BoolArray: TypeAlias = npt.NDArray[np.bool_]

MOST_CHUNKS_FORESEEN = 1_000_000
"""Beyond this, "how many chunks would it take" has no useful answer."""


def stdtr(df: float, t: F64 | float) -> F64:
    """Distribution function of Student's t, as :mod:`scipy.special` has it; loaded when used."""
    from scipy import special

    return np.asarray(special.stdtr(df, t), np.float64)


def stdtrit(df: float, p: float) -> float:
    """Quantile of Student's t, as :mod:`scipy.special` has it."""
    from scipy import special

    return float(special.stdtrit(df, p))


class Interval(NamedTuple):
    """A figure and the ends of its interval, in the figure's unit; an open end is ±inf."""

    figure: float
    low: float
    high: float


def chunk_figures(x: npt.ArrayLike) -> F64:
    """`x` as a float64 array of shape (n_chunks,), n_chunks >= 1, every entry finite.

    Raises:
        ValueError: for another shape, for no chunk at all, and for NaN or infinity. Logits that
            are not finite are a verdict of their own, upstream of any statistic.
    """
    figures = np.asarray(x, dtype=np.float64)
    if figures.ndim != 1 or figures.size == 0:
        raise ValueError(f"expected one figure per chunk, got an array of shape {figures.shape}")
    if not np.isfinite(figures).all():
        raise ValueError("a chunk's figure is not finite")
    return figures


def t_interval(x: npt.ArrayLike, level: float) -> Interval:
    """Mean of x with its t interval m ± t·s/√n, t the (1 - level) quantile on n - 1 degrees.

    With alpha a side over four looks, `level` is alpha/4. One chunk has no spread: its interval
    is unbounded.

    Args:
        x: shape (n_chunks,), in any unit.
        level: error allowed at each end.
    """
    figures = chunk_figures(x)
    mean = float(figures.mean())
    if figures.size < 2:
        return Interval(mean, -math.inf, math.inf)
    reach = t_quantile(level, figures.size) * standard_error(figures)
    return Interval(mean, mean - reach, mean + reach)


def log_t_interval(x: npt.ArrayLike, level: float) -> Interval:
    """Mean of a non-negative x with a t interval on the log scale: m · exp(± t·s/(m·√n)).

    The standard error of ln m is s/(m·√n) (delta method). Skewed figures make the plain t
    bound too low, hence a PASS too easy; on the log scale it is wider upwards. One chunk is
    unbounded; a mean of zero, or no spread, gives an interval of no width.

    Args:
        x: shape (n_chunks,), non-negative.
        level: error allowed at each end.

    Raises:
        ValueError: for a negative or non-finite x.
    """
    figures = chunk_figures(x)
    if figures.min() < 0:
        raise ValueError("a log-scale interval needs figures that cannot be negative")
    mean = float(figures.mean())
    if figures.size < 2:
        return Interval(mean, 0.0, math.inf)
    error = standard_error(figures)
    if mean == 0 or error == 0:
        return Interval(mean, mean, mean)
    with np.errstate(over="ignore"):  # two chunks far apart reach beyond float64: unbounded
        factor = float(np.exp(t_quantile(level, figures.size) * error / mean))
    return Interval(mean, mean / factor, mean * factor)


def t_p_value(x: npt.ArrayLike, budget: float) -> float:
    """p-value of "the mean of x lies within ±budget", at one look.

        p = P(T > (|m| - B)/se) + P(T > (|m| + B)/se),   se = s/√n,   T on n - 1 degrees

    Both sides count, since a mean at +B can also stray below -B: for a small budget the second
    term doubles p. Student's t at the least favourable mean, ±B.

    Args:
        x: shape (n_chunks,); fewer than two chunks carry no evidence, p = 1.
        budget: B >= 0, in the unit of x.
    """
    figures = chunk_figures(x)
    if figures.size < 2:
        return 1.0
    distance = abs(float(figures.mean()))
    error = standard_error(figures)
    if error == 0:
        return 0.0 if distance > budget else 1.0
    sides = np.array([distance - budget, distance + budget]) / error
    return min(1.0, float(stdtr(figures.size - 1, -sides).sum()))


def standard_error(x: F64) -> float:
    """Chunk-level standard error of the mean, s/√n, of two chunks or more.

    Chunks that are equal to the last bit have none: the rounding of their mean must not
    invent one.
    """
    if x.min() == x.max():
        return 0.0
    return float(x.std(ddof=1)) / math.sqrt(x.size)


def one_sided_p(x: npt.ArrayLike) -> float:
    """p-value of "the mean of x is at most 0", at one look: P(T > m/se), n - 1 degrees.

    Args:
        x: shape (n_chunks,); fewer than two chunks carry no evidence, p = 1.
    """
    figures = chunk_figures(x)
    if figures.size < 2:
        return 1.0
    error = standard_error(figures)
    if error == 0:
        return 0.0 if figures.mean() > 0 else 1.0
    return float(stdtr(figures.size - 1, -figures.mean() / error))


def t_quantile(level: float, n: int) -> float:
    """Student's t that n chunks exceed with probability ``level``, n - 1 degrees of freedom."""
    return float(stdtrit(n - 1, 1 - level))


def holm(p_values: npt.ArrayLike, alpha: float) -> BoolArray:
    """Which hypotheses of a family Holm's step-down test rejects at family-wise `alpha`.

    In ascending order p_(1) <= … <= p_(m), reject while p_(i) <= alpha/(m - i + 1). Needs no
    independence. An e-value enters as `e_to_p(E)`. Holm 1979.

    Args:
        p_values: shape (m,), in [0, 1]; m may be 0.
        alpha: chance of even one false rejection in the family.

    Returns:
        Shape (m,), in the order given.

    Raises:
        ValueError: for a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values are numbers between 0 and 1, one per hypothesis")
    order = np.argsort(p, kind="stable")
    kept = np.logical_and.accumulate(p[order] <= alpha / np.arange(p.size, 0, -1))
    rejected = np.zeros(p.size, dtype=np.bool_)
    rejected[order] = kept
    return rejected


def chunks_needed(mean: float, spread: float, budget: float) -> int | None:
    """Chunks after which a mean under the budget would be told from it: ⌈(2.6·s/(B - m))²⌉.

    Args:
        mean: m, the figure so far.
        spread: s, its standard deviation between chunks.
        budget: B, in the same unit; for a rule on the log scale, pass ln m, s/m and ln B.

    Returns:
        At least 1; None when m >= B, where no number of chunks is foreseen to pass.
    """
    if mean >= budget:
        return None
    root = 2.6 * spread / (budget - mean)
    return max(1, math.ceil(root * root)) if root * root <= MOST_CHUNKS_FORESEEN else None
