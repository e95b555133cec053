"""Shares of tokens, which depend on each other within a chunk."""

from __future__ import annotations

from bisect import bisect_left

import numpy.typing as npt

from pytest_kvquant.numerics.stats import (
    MOST_CHUNKS_FORESEEN,
    Interval,
    chunk_figures,
)


def betaincinv(a: float, b: float, y: float) -> float:
    """Quantile of a beta distribution, as :mod:`scipy.special` has it."""
    from scipy import special

    return float(special.betaincinv(a, b, y))


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
