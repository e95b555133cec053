"""Exact attention: against a plain loop, and its models of rounding against simulated rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.numerics import attention, query_rounding
from pytest_kvquant.numerics.attention import Scores
from pytest_kvquant.numerics.half_sums import attend_in_halves


def example(seed: int, rows: int = 3, cells: int = 50, size: int = 32):
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(count, size)) for count in (rows, cells, cells))
    mask = np.where(rng.random((rows, cells)) < 0.3, -np.inf, 0.0)
    mask[:, 0] = 0
    return q, k, v, mask


def plainly(q, k, v, mask, how: Scores):
    out = np.zeros((len(q), v.shape[1]))
    for row in range(len(q)):
        score = np.array([how.scale * (q[row] @ key) for key in k])
        if how.softcap:
            score = how.softcap * np.tanh(score / how.softcap)
        weight = np.where(mask[row] > -np.inf, np.exp(score + how.slope * mask[row]), 0)
        total = weight.sum() + (np.exp(how.sink) if how.sink is not None else 0)
        out[row] = (weight / total) @ v
    return out


@pytest.mark.parametrize(
    "how",
    [Scores(0.2), Scores(0.2, softcap=3.0), Scores(0.2, sink=2.0), Scores(0.3, slope=0.5)],
)
def test_it_is_what_a_plain_loop_gives(how: Scores) -> None:
    q, k, v, mask = example(1)
    mask = np.where(mask == 0, -np.abs(np.arange(50) - 25.0), mask) if how.slope != 1 else mask
    np.testing.assert_allclose(
        attention.attend(q, k, v, mask, how).out, plainly(q, k, v, mask, how), rtol=1e-9, atol=1e-12
    )


@given(st.integers(0, 1000), st.sampled_from([0.99, 1.01, 1.002]))
def test_a_common_change_of_scores_or_values_is_measured(seed: int, factor: float) -> None:
    q, k, v, mask = example(seed)
    meant = attention.attend(q, k, v, mask, Scores(0.2))
    scores = attention.misfit(attention.attend(q, k, v, mask, Scores(0.2 * factor)).out, meant)
    assert scores.by_score == pytest.approx(factor - 1, rel=0.1)
    assert abs(scores.by_value) < abs(factor - 1) / 5
    values = attention.misfit(factor * meant.out, meant)
    assert values.by_value == pytest.approx(factor - 1)
    assert abs(values.by_score) < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_the_model_of_sums_in_half_precision_is_near_and_above_simulated_ones(seed: int) -> None:
    q, k, v, _ = example(seed, rows=8, cells=300, size=64)
    v = v.astype(np.float16).astype(np.float64)
    meant = attention.attend(q, k, v, np.zeros((8, 300)), Scores(0.125))
    wrong = []
    for row in range(8):
        score = (q[row] @ k.T) * 0.125
        weight = np.exp(score - score.max()).astype(np.float32)
        total = np.zeros(64, np.float16)
        for cell in range(300):
            added = total.astype(np.float32) + weight[cell] * v[cell].astype(np.float32)
            total = added.astype(np.float16)
        out = total.astype(np.float64) / weight.sum()
        wrong.append(np.square(out - meant.out[row]).sum() / meant.halves[row])
    assert 0.1 < np.mean(wrong) < 1
    assert max(wrong) < 2


@pytest.mark.parametrize("alike", [True, False])
def test_scores_that_move_each_for_itself_move_the_output_as_modelled(alike: bool) -> None:
    """Of keys that are alike a common factor moves nothing: 8 tokens of turbo4/turbo2 failed."""
    q, k, v, mask = example(4, rows=4, cells=6)
    k = np.repeat(k[:1], 6, axis=0) if alike else k
    how = Scores(0.2)
    meant = attention.attend(q, k, v, mask, how)
    rng, step, moved = np.random.default_rng(5), 1e-4, np.zeros(4)
    score = attention.scores(q, k, how)
    for _ in range(4000):
        weights = attention.weights_of(score + step * rng.normal(size=score.shape), mask, how)
        moved += attention.squares(weights @ v - meant.out) / step**2 / 4000
    assert moved == pytest.approx(meant.by_each_score, rel=0.1)
    assert not alike or attention.squares(meant.by_score).max() < 1e-20


def test_a_value_that_is_not_finite_is_infinitely_wrong() -> None:
    q, k, v, mask = example(2)
    meant = attention.attend(q, k, v, mask, Scores(0.2))
    out = meant.out.copy()
    out[1, 3] = np.nan
    found = attention.misfit(out, meant)
    assert (found.error, found.row) == (np.inf, 1)


def test_alibi_slopes_of_a_head_count_that_is_no_power_of_two() -> None:
    np.testing.assert_allclose(attention.slopes(4, 8.0), [2**-2, 2**-4, 2**-6, 2**-8])
    np.testing.assert_allclose(attention.slopes(6, 8.0), [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])
    assert (attention.slopes(5, 0.0) == 1).all()


def test_offsets_bring_the_rounding_of_the_sums() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(4, 64)), rng.normal(size=(9, 64))
    more_q, more_k = query_rounding.with_offsets(q, k)
    plain = query_rounding.rounded_to_eights(q, scale_in_half=True)
    np.testing.assert_allclose(more_q[:, :64], plain)
    assert more_k.shape == (9, 66)
    assert 0 < np.abs(more_q @ more_k.T - plain @ k.T).max() < 0.05


def test_sums_in_half_precision_lose_small_terms() -> None:
    """Which no model of independent errors shows: the sums are all too small."""
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(4, 32)) / 50, rng.normal(size=(500, 32)) / 50
    v = (1 + rng.random((500, 32)) / 10).astype(np.float16).astype(np.float64)
    meant = attention.attend(q, k, v, np.zeros((4, 500)), Scores(1.0))
    out = attend_in_halves(q, k, v, np.zeros((4, 500)), Scores(1.0))
    found = attention.misfit(out, meant)
    assert found.error > 5 * (meant.halves / np.square(meant.out).sum(axis=1)).mean()
    parts = attend_in_halves(q, k, v, np.zeros((4, 500)), Scores(1.0), parts=4)
    assert attention.misfit(parts, meant).error < found.error / 2


def test_stretches_of_a_single_precision_size_are_exact_attention() -> None:
    q, k, v, mask = example(3)
    how = Scores(0.2, softcap=2.0, sink=1.0)
    out = attend_in_halves(q, k, v, mask, how, parts=3)
    np.testing.assert_allclose(out, plainly(q, k, v, mask, how), atol=3e-3)
