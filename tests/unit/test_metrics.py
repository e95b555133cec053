"""Statistics against the formulas of ``llama-perplexity`` (``perplexity.cpp``), written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.numerics.kernels import TokenFigures, compare_rows
from pytest_kvquant.numerics.metrics import quality

CHUNKS, SCORED, VOCABULARY = 5, 40, 60


@pytest.fixture(scope="module")
def figures() -> TokenFigures:
    rng = np.random.default_rng(0)
    shape = (CHUNKS * SCORED, VOCABULARY)
    reference = (2 * rng.standard_normal(shape)).astype(np.float32)
    cell = reference + (0.2 * rng.standard_normal(shape)).astype(np.float32)
    found = compare_rows(reference, cell, rng.integers(0, VOCABULARY, len(cell), dtype=np.int32))
    return TokenFigures._make(column.reshape(CHUNKS, SCORED) for column in found)


def mean_and_uncertainty(values: Any) -> tuple[float, float]:
    """``mean_and_uncertainty``: sums, then √((Σx²/n − mean²)/(n − 1))."""
    n = values.size
    mean = float(values.sum()) / n
    return mean, math.sqrt((float((values * values).sum()) / n - mean * mean) / (n - 1))


def covariance(a: Any, b: Any) -> float:
    """``covariance``: of the means."""
    n = a.size
    return (float((a * b).sum()) / n - float(a.sum()) / n * float(b.sum()) / n) / (n - 1)


def percentile(values: Any, fraction: float) -> float:
    """``percentile``: linear between neighbours of the sorted values."""
    ordered = np.sort(values.ravel())
    place = fraction * (ordered.size - 1)
    below = int(place)
    if below >= ordered.size - 1:
        return float(ordered[-1])
    return float(ordered[below] + (place - below) * (ordered[below + 1] - ordered[below]))


def test_perplexities(figures: TokenFigures) -> None:
    found = quality(figures)
    cell, cell_error = mean_and_uncertainty(figures.nll_cell)
    base, base_error = mean_and_uncertainty(figures.nll_reference)
    together = covariance(figures.nll_cell, figures.nll_reference)
    assert found.ppl == pytest.approx(math.exp(cell), rel=1e-12)
    assert found.ppl_se == pytest.approx(math.exp(cell) * cell_error, rel=1e-9)
    assert found.ppl_reference == pytest.approx(math.exp(base), rel=1e-12)
    assert found.ppl_reference_se == pytest.approx(math.exp(base) * base_error, rel=1e-9)
    assert found.cor_ln_ppl == pytest.approx(together / (cell_error * base_error), rel=1e-9)
    ratio_error = math.sqrt(cell_error**2 + base_error**2 - 2 * together)
    assert found.ln_ppl_ratio == pytest.approx(cell - base, rel=1e-9)
    assert found.ln_ppl_ratio_se == pytest.approx(ratio_error, rel=1e-9)
    assert found.ppl_ratio == pytest.approx(math.exp(cell - base), rel=1e-12)
    assert found.ppl_ratio_se == pytest.approx(math.exp(cell - base) * ratio_error, rel=1e-9)
    assert found.ppl_delta == pytest.approx(math.exp(cell) - math.exp(base), rel=1e-9)
    p, q = math.exp(cell), math.exp(base)
    difference = (p * cell_error) ** 2 + (q * base_error) ** 2 - 2 * p * q * together
    assert found.ppl_delta_se == pytest.approx(math.sqrt(difference), rel=1e-9)


def test_divergence_and_agreement(figures: TokenFigures) -> None:
    found = quality(figures)
    assert (found.kl_mean, found.kl_mean_se) == pytest.approx(
        mean_and_uncertainty(figures.kl), rel=1e-9
    )
    assert (found.mean_dp, found.mean_dp_se) == pytest.approx(
        mean_and_uncertainty(figures.delta_p), rel=1e-9
    )
    square, square_error = mean_and_uncertainty(figures.delta_p**2)
    assert found.rms_dp == pytest.approx(math.sqrt(square), rel=1e-12)
    assert found.rms_dp_se == pytest.approx(0.5 / math.sqrt(square) * square_error, rel=1e-9)
    share = float((figures.top_cell == figures.top_reference).mean())
    n = figures.kl.size
    assert 0 < share < 1
    assert found.top1 == pytest.approx(share, rel=1e-12)
    assert found.top1_se == pytest.approx(math.sqrt(share * (1 - share) / (n - 1)), rel=1e-9)
    assert (found.tokens, found.chunks) == (CHUNKS * SCORED, CHUNKS)


@pytest.mark.parametrize(
    ("name", "fraction"),
    [("max", 1), ("p999", 0.999), ("p99", 0.99), ("p95", 0.95), ("p90", 0.9), ("median", 0.5),
     ("p10", 0.1), ("p05", 0.05), ("p01", 0.01), ("p001", 0.001), ("min", 0)],
)  # fmt: skip
def test_percentiles(name: str, fraction: float, figures: TokenFigures) -> None:
    found = quality(figures)
    assert getattr(found, f"kl_{name}") == pytest.approx(percentile(figures.kl, fraction))
    assert getattr(found, f"dp_{name}") == pytest.approx(percentile(figures.delta_p, fraction))


def test_quartiles_of_dp(figures: TokenFigures) -> None:
    found = quality(figures)
    assert found.dp_p75 == pytest.approx(percentile(figures.delta_p, 0.75))
    assert found.dp_p25 == pytest.approx(percentile(figures.delta_p, 0.25))


def test_chunk_errors_take_the_chunk_as_the_unit(figures: TokenFigures) -> None:
    found = quality(figures)

    def error(values: Any) -> float:
        return float(values.mean(axis=1).std(ddof=1)) / math.sqrt(CHUNKS)

    assert found.kl_mean_chunk_se == pytest.approx(error(figures.kl))
    assert found.ln_ppl_ratio_chunk_se == pytest.approx(
        error(figures.nll_cell - figures.nll_reference)
    )
    assert found.top1_chunk_se == pytest.approx(error(figures.top_cell == figures.top_reference))


def test_a_cell_equal_to_its_reference(figures: TokenFigures) -> None:
    found = quality(
        figures._replace(
            nll_cell=figures.nll_reference,
            top_cell=figures.top_reference,
            kl=np.zeros_like(figures.kl),
            delta_p=np.zeros_like(figures.kl),
        )
    )
    assert (found.kl_mean, found.kl_max, found.ppl_delta, found.ln_ppl_ratio) == (0, 0, 0, 0)
    assert (found.top1, found.rms_dp, found.rms_dp_se) == (1, 0, 0)
    assert found.ppl_delta_se == found.top1_se == 0
    assert found.cor_ln_ppl == pytest.approx(1)


def test_one_chunk_has_no_chunk_error(figures: TokenFigures) -> None:
    found = quality(TokenFigures._make(column[:1] for column in figures))
    assert found.kl_mean_chunk_se is None
    assert found.top1_chunk_se is None
    assert found.kl_mean_se > 0


def test_a_single_token_has_no_error_at_all(figures: TokenFigures) -> None:
    found = quality(TokenFigures._make(column[:1, :1] for column in figures))
    assert (found.tokens, found.kl_mean_se, found.cor_ln_ppl) == (1, 0.0, None)
    assert found.kl_mean == figures.kl[0, 0]


@given(st.floats(1.0, 30.0), st.floats(1e-9, 1e-3))
def test_a_small_change_of_a_large_perplexity_keeps_its_digits(nll: float, change: float) -> None:
    """ln ratio comes from differences per token, not from two means."""
    each = nll + np.linspace(-1, 1, 200).reshape(2, 100)
    blank = np.zeros((2, 100))
    same = np.zeros((2, 100), np.int32)
    digest = np.zeros((2, 100), np.uint64)
    found = quality(TokenFigures(each, each + change, blank, blank, blank, same, same, digest))
    assert found.ln_ppl_ratio == pytest.approx(change, rel=1e-6, abs=1e-14)
    assert found.ppl_delta == pytest.approx(found.ppl_reference * math.expm1(change), rel=1e-4)
