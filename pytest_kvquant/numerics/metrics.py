"""Per-token figures → the statistics people know from ``llama-perplexity --kl-divergence``.

Names, percentiles and the ± of that program (``tools/perplexity/perplexity.cpp``): its standard
errors treat every token as independent and are about half of the chunk-level ones, which stand
beside them as ``…_chunk_se``. Shares and probabilities are in 0..1; log figures in nats.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import F64, I32
from pytest_kvquant.numerics.kernels import TokenFigures


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Quality figures of one cell over all scored tokens of ``chunks`` chunks."""

    tokens: int
    """Scored tokens."""
    chunks: int
    """Chunks."""
    ppl: float
    """PPL of the cell."""
    ppl_se: float
    """Its standard error, from tokens."""
    ppl_reference: float
    """PPL of the reference."""
    ppl_reference_se: float
    """Its standard error, from tokens."""
    ppl_delta: float
    """PPL(cell) − PPL(reference), paired."""
    ppl_delta_se: float
    """Its standard error, from tokens."""
    ppl_ratio: float
    """PPL(cell) / PPL(reference)."""
    ppl_ratio_se: float
    """Its standard error, from tokens."""
    ln_ppl_ratio: float
    """ln of the PPL ratio."""
    ln_ppl_ratio_se: float
    """Its standard error, from tokens."""
    ln_ppl_ratio_chunk_se: float | None
    """Its standard error, from chunks."""
    cor_ln_ppl: float | None
    """Correlation of the per-token nll of cell and reference, in 0..1."""
    kl_mean: float
    """Mean KL, nats per token."""
    kl_mean_se: float
    """Its standard error, from tokens."""
    kl_mean_chunk_se: float | None
    """Its standard error, from chunks."""
    kl_max: float
    """Largest KL, nats."""
    kl_p999: float
    """99.9 % quantile of KL, nats."""
    kl_p99: float
    """99 % quantile of KL, nats."""
    kl_p95: float
    """95 % quantile of KL, nats."""
    kl_p90: float
    """90 % quantile of KL, nats."""
    kl_median: float
    """Median KL, nats."""
    kl_p10: float
    """10 % quantile of KL, nats."""
    kl_p05: float
    """5 % quantile of KL, nats."""
    kl_p01: float
    """1 % quantile of KL, nats."""
    kl_p001: float
    """0.1 % quantile of KL, nats."""
    kl_min: float
    """Smallest KL, nats."""
    top1: float
    """Share of tokens with the same argmax."""
    top1_se: float
    """Standard error of the share, from tokens."""
    top1_chunk_se: float | None
    """Its standard error, from chunks."""
    mean_dp: float
    """Mean of p(cell) − p(reference) of the token that came next."""
    mean_dp_se: float
    """Standard error of the mean Δp, from tokens."""
    rms_dp: float
    """RMS change of the probability of the right token, 0..1."""
    rms_dp_se: float
    """Its standard error, from tokens."""
    dp_max: float
    """Largest Δp of the right token, -1..1."""
    dp_p999: float
    """99.9 % quantile of Δp of the right token."""
    dp_p99: float
    """99 % quantile of Δp of the right token."""
    dp_p95: float
    """95 % quantile of Δp of the right token."""
    dp_p90: float
    """90 % quantile of Δp of the right token."""
    dp_p75: float
    """75 % quantile of Δp of the right token."""
    dp_median: float
    """Median Δp of the right token."""
    dp_p25: float
    """25 % quantile of Δp of the right token."""
    dp_p10: float
    """10 % quantile of Δp of the right token."""
    dp_p05: float
    """5 % quantile of Δp of the right token."""
    dp_p01: float
    """1 % quantile of Δp of the right token."""
    dp_p001: float
    """0.1 % quantile of Δp of the right token."""
    dp_min: float
    """Smallest Δp of the right token, -1..1."""


POSITION_BINS = 16
"""Into how many runs of scored tokens a profile divides the chunk, at most."""

LOG10_KL_EDGES = (-8.0, 1.5, 0.25)
"""First edge, last edge and width of a profile's bins of log10 KL."""


class KLProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a chunk, and in how many tokens, the KL of one cell is."""

    positions: tuple[float, ...]
    """Mean KL, nats, of runs of scored tokens as equal as can be, from the first to the last."""
    histogram: tuple[int, ...]
    """Tokens per bin of log10 KL (`LOG10_KL_EDGES`); the outer bins hold what lies beyond."""


def kl_profile(kl: F64) -> KLProfile:
    """Summarize KL over position and over size.

    Args:
        kl: nats, shape ``(chunks, scored)``, all finite.
    """
    by_position = np.maximum(kl, 0.0).mean(axis=0)
    runs = np.array_split(by_position, min(POSITION_BINS, by_position.size))
    low, high, width = LOG10_KL_EDGES
    bins = round((high - low) / width)
    logs = np.log10(np.maximum(kl.ravel(), 10.0**low))
    at = np.clip(np.floor((logs - low) / width), 0, bins - 1).astype(np.int64)
    return KLProfile(
        positions=tuple(float(run.mean()) for run in runs),
        histogram=tuple(np.bincount(at, minlength=bins).tolist()),
    )


def quality(figures: TokenFigures) -> Quality:
    """Summarize the tokens of complete chunks.

    Args:
        figures: columns of shape ``(chunks, scored)``, all finite, at least two tokens.
    """
    chunks, _ = figures.kl.shape
    cell, reference = figures.nll_cell.ravel(), figures.nll_reference.ravel()
    ln_cell, ln_cell_se = _mean_se(cell)
    ln_reference, ln_reference_se = _mean_se(reference)
    ln_ratio, ln_ratio_se = _mean_se(cell - reference)
    ppl, ppl_reference, ratio = math.exp(ln_cell), math.exp(ln_reference), math.exp(ln_ratio)
    kl_mean, kl_se = _mean_se(figures.kl.ravel())
    dp_mean, dp_se = _mean_se(figures.delta_p.ravel())
    dp_square, dp_square_se = _mean_se(figures.delta_p.ravel() ** 2)
    rms = math.sqrt(dp_square)
    same = figures.top_cell == figures.top_reference
    kl = np.percentile(figures.kl, [0, 0.1, 1, 5, 10, 50, 90, 95, 99, 99.9, 100]).tolist()
    dp = np.percentile(
        figures.delta_p, [0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100]
    ).tolist()
    return Quality(
        tokens=cell.size,
        chunks=chunks,
        ppl=ppl,
        ppl_se=ppl * ln_cell_se,
        ppl_reference=ppl_reference,
        ppl_reference_se=ppl_reference * ln_reference_se,
        ppl_delta=ppl - ppl_reference,
        ppl_delta_se=_mean_se(ppl * cell - ppl_reference * reference)[1],
        ppl_ratio=ratio,
        ppl_ratio_se=ratio * ln_ratio_se,
        ln_ppl_ratio=ln_ratio,
        ln_ppl_ratio_se=ln_ratio_se,
        ln_ppl_ratio_chunk_se=_chunk_se(figures.nll_cell - figures.nll_reference),
        cor_ln_ppl=_correlation(cell, reference),
        kl_mean=kl_mean,
        kl_mean_se=kl_se,
        kl_mean_chunk_se=_chunk_se(figures.kl),
        kl_max=kl[10],
        kl_p999=kl[9],
        kl_p99=kl[8],
        kl_p95=kl[7],
        kl_p90=kl[6],
        kl_median=kl[5],
        kl_p10=kl[4],
        kl_p05=kl[3],
        kl_p01=kl[2],
        kl_p001=kl[1],
        kl_min=kl[0],
        top1=float(same.mean()),
        top1_se=_mean_se(same.ravel())[1],
        top1_chunk_se=_chunk_se(same),
        mean_dp=dp_mean,
        mean_dp_se=dp_se,
        rms_dp=rms,
        rms_dp_se=0.5 / rms * dp_square_se if rms else 0.0,
        dp_max=dp[12],
        dp_p999=dp[11],
        dp_p99=dp[10],
        dp_p95=dp[9],
        dp_p90=dp[8],
        dp_p75=dp[7],
        dp_median=dp[6],
        dp_p25=dp[5],
        dp_p10=dp[4],
        dp_p05=dp[3],
        dp_p01=dp[2],
        dp_p001=dp[1],
        dp_min=dp[0],
    )


def _mean_se(values: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Mean and token-level standard error, √(variance / (n − 1)), as ``llama-perplexity``."""
    if values.size < 2:
        return float(values.mean()), 0.0
    return float(values.mean()), float(values.std() / math.sqrt(values.size - 1))


def _chunk_se(values: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> float | None:
    """Standard error of the mean with the chunk as the unit; shape ``(chunks, scored)``."""
    if len(values) < 2:
        return None
    return float(values.mean(axis=1).std(ddof=1) / math.sqrt(len(values)))


def _correlation(a: F64, b: F64) -> float | None:
    spread = float(a.std() * b.std())
    if spread == 0.0:
        return None
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread)


def unigram_perplexity(tokens: I32) -> float:
    """The perplexity of a text to a model that knows how often each of its tokens comes.

    Args:
        tokens: shape ``(n,)``.

    >>> unigram_perplexity(np.array([1, 2, 1, 2], np.int32))
    2.0
    """
    counts = np.unique(tokens, return_counts=True)[1]
    shares = counts / max(1, len(tokens))
    return float(np.exp(-(shares * np.log(shares)).sum()))
