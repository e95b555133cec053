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
from bisect import bisect_left
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

MEAN_STAKES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""Stakes λ of the bet against a mean; small ones catch slight excess, large ones gross faults."""

SIGN_STAKES = (0.4, 0.7, 0.9)
"""Stakes λ of the bet against a median."""

LARGEST_E = float(np.finfo(np.float64).max)
"""E-values saturate here, so that they stay finite in JSON and 1/E stays above zero."""

MOST_CHUNKS_FORESEEN = 1_000_000
"""Beyond this, "how many chunks would it take" has no useful answer."""


def stdtr(df: float, t: FloatArray | float) -> FloatArray:
    """Distribution function of Student's t, as :mod:`scipy.special` has it; loaded when used."""
    from scipy import special

    return np.asarray(special.stdtr(df, t), np.float64)


def stdtrit(df: float, p: float) -> float:
    """Quantile of Student's t, as :mod:`scipy.special` has it."""
    from scipy import special

    return float(special.stdtrit(df, p))


def betaincinv(a: float, b: float, y: float) -> float:
    """Quantile of a beta distribution, as :mod:`scipy.special` has it."""
    from scipy import special

    return float(special.betaincinv(a, b, y))


class Interval(NamedTuple):
    """A figure and the ends of its interval, in the figure's unit; an open end is ±inf."""

    figure: float
    low: float
    high: float


class SignEvidence(NamedTuple):
    """Running e-values of the speed rounds, each of shape (n_rounds,)."""

    below: FloatArray
    """Evidence that the median ratio is under the floor: the FAIL side."""
    above: FloatArray
    """Evidence that the median ratio is over the floor: the PASS side."""


def chunk_figures(x: npt.ArrayLike) -> FloatArray:
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


def betting_e_values(x: npt.ArrayLike, budget: float) -> FloatArray:
    """Running e-values E_1 … E_n against "the mean of x is at most the budget".

        E_n = mean over λ of Π_{c <= n} (1 + λ·(x_c / B - 1))

    Valid at every n and under any stopping rule, for any distribution on [0, ∞) and any
    dependence in which each chunk's mean given the earlier ones is at most B: then
    P(E_n >= 1/alpha for some n) <= alpha. Ville 1939; Waudby-Smith & Ramdas 2024.

    Args:
        x: shape (n_chunks,), non-negative, in the order drawn.
        budget: B > 0, in the unit of x.

    Returns:
        Shape (n_chunks,), without unit, saturating at `LARGEST_E`.

    Raises:
        ValueError: for a negative or non-finite x, or a budget that is not a positive number.
    """
    figures = chunk_figures(x)
    if figures.min() < 0:
        raise ValueError("a bet against a mean needs figures that cannot be negative")
    if not 0 < budget < math.inf:
        raise ValueError(f"a bet against a mean needs a budget above zero, got {budget}")
    with np.errstate(over="ignore"):  # x/B beyond float64 is an infinite gain, and meant so
        return _mixture(figures / budget - 1, MEAN_STAKES)


def sign_e_values(log_ratio: npt.ArrayLike, floor: float) -> SignEvidence:
    """Running sign e-values of the speed ratio against a floor, in both directions.

        s = +1 where d < ln r0, else -1;   E_n = mean over λ of Π_{i <= n} (1 + λ·s_i)

    and mirrored (d > ln r0) for PASS; a round exactly on the floor counts against both. Only
    the median of the ratio matters: one slow round, however slow, is one round. Ville 1939.

    Args:
        log_ratio: d, shape (n_rounds,): ln(tok/s of the cell) - ln(tok/s of f16/f16) per round.
        floor: r0 > 0, the least ratio allowed.

    Raises:
        ValueError: for non-finite rounds or a floor that is not a positive number.
    """
    rounds = chunk_figures(log_ratio)
    if not 0 < floor < math.inf:
        raise ValueError(f"the floor of a speed ratio must be above zero, got {floor}")
    edge = math.log(floor)
    return SignEvidence(
        below=_mixture(np.where(rounds < edge, 1.0, -1.0), SIGN_STAKES),
        above=_mixture(np.where(rounds > edge, 1.0, -1.0), SIGN_STAKES),
    )


def _mixture(gains: FloatArray, stakes: tuple[float, ...]) -> FloatArray:
    """Mean over stakes λ of the running products Π (1 + λ·gain), in log space."""
    stake = np.asarray(stakes)[:, np.newaxis]
    log_wealth = np.cumsum(np.log1p(stake * gains), axis=1)
    log_mean = np.logaddexp.reduce(log_wealth, axis=0) - math.log(len(stakes))
    e_values: FloatArray = np.exp(np.minimum(log_mean, math.log(LARGEST_E)))
    return e_values


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


def standard_error(x: FloatArray) -> float:
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


def design_effect(shares: npt.ArrayLike, m_tok: int, least: float) -> float:
    """How many clustered tokens are worth one independent token: D = max(D0, m_tok·s²/(p(1-p))).

    The second term is the observed variance of a chunk's share over its binomial variance
    (Kish 1965). It says nothing when every token agrees or there is one chunk: then D0 stands.

    Args:
        shares: shape (n_chunks,), in [0, 1].
        m_tok: scored tokens per chunk, the same for all.
        least: D0, the design effect assumed at least.

    Raises:
        ValueError: for shares outside [0, 1] or m_tok < 1.
    """
    figures = chunk_figures(shares)
    if figures.min() < 0 or figures.max() > 1:
        raise ValueError("a share of tokens lies between 0 and 1")
    if m_tok < 1:
        raise ValueError(f"a chunk scores at least one token, got {m_tok}")
    share = float(figures.mean())
    binomial = share * (1 - share)
    if figures.size < 2 or binomial == 0:
        return least
    return max(least, m_tok * float(figures.var(ddof=1)) / binomial)


def clopper_pearson(share: float, effective_n: float, level: float) -> Interval:
    """Exact binomial interval of a share seen in `effective_n` independent tokens.

        high = Beta⁻¹(1 - level; k + 1, n - k),   low = Beta⁻¹(level; k, n - k + 1)

    with n = N/D and k = share·n, neither of them whole: the Beta form does not need it.
    Clopper & Pearson 1934.

    Args:
        share: in [0, 1].
        effective_n: tokens over design effect, above 0.
        level: error allowed at each end.

    Raises:
        ValueError: for a share outside [0, 1] or an effective_n that is not positive.
    """
    if not 0 <= share <= 1 or not effective_n > 0:
        raise ValueError(f"no binomial interval for a share of {share} in {effective_n} tokens")
    hits, misses = share * effective_n, (1 - share) * effective_n
    low = float(betaincinv(hits, misses + 1, level)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, misses, 1 - level)) if misses > 0 else 1.0
    return Interval(share, low, high)


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


def e_to_p(e_value: float) -> float:
    """min(1, 1/E): a p-value that stays valid whenever one looks (Ville 1939)."""
    return 1.0 if e_value <= 1 else 1 / e_value


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


def chunks_needed_share(
    share: float, effective_per_chunk: float, budget: float, level: float
) -> int | None:
    """Chunks after which the Clopper-Pearson bound of an unchanged share is under the budget.

    The formula of `chunks_needed` would ask for no chunk at all where no token was hit, so the
    bound itself is asked.

    Args:
        share: the figure so far, in [0, 1].
        effective_per_chunk: m_tok over the design effect.
        budget: the most the share may be.
        level: error allowed at the upper end.

    Returns:
        At least 1; None when share >= budget or more than `MOST_CHUNKS_FORESEEN` are needed.
    """
    if share >= budget:
        return None

    def passes(n: int) -> bool:
        return clopper_pearson(share, n * effective_per_chunk, level).high < budget

    chunks = range(1, MOST_CHUNKS_FORESEEN + 1)
    at = bisect_left(chunks, True, key=passes)
    return chunks[at] if at < len(chunks) else None
