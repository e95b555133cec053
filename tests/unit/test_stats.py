"""Formulas against hand-worked or library values, and the validity of each by simulation.

A simulated error rate is held against its bound with a one-sided binomial test: the test fails
only if a rate at the bound would be that unlucky once in a thousand runs; and the seed is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import (  # type: ignore[import-untyped, unused-ignore]
    beta,
    binomtest,
    t,
)

from pytest_kvquant.numerics import betting, stats, token_shares
from pytest_kvquant.numerics.arrays import F64 as FloatArray

ALPHA = 0.01
LEVEL = ALPHA / 4
BUDGET = 0.02

Draw = Callable[[np.random.Generator, int], FloatArray]


def lognormal(sigma: float) -> Draw:
    return lambda rng, n: rng.lognormal(-sigma * sigma / 2, sigma, n)


def pareto(shape: float) -> Draw:
    return lambda rng, n: (rng.pareto(shape, n) + 1) * (shape - 1) / shape


def bursts(rng: np.random.Generator, n: int) -> FloatArray:
    return np.where(rng.random(n) < 0.02, 50.0, 0.0)


def shuffled_corpus(rng: np.random.Generator, n: int) -> FloatArray:
    """n chunks drawn in permuted order from a corpus of 128 whose neighbours are alike."""
    topic = np.repeat(rng.lognormal(0, 1, 16), 8)
    corpus = topic * rng.lognormal(0, 0.5, 128)
    return rng.permutation(corpus / corpus.mean())[:n]


HEAVY_TAILS = {
    "lognormal 0.65": lognormal(0.65),
    "lognormal 1.5": lognormal(1.5),
    "pareto 1.5, infinite variance": pareto(1.5),
    "bursts": bursts,
    "chunk effects, shuffled": shuffled_corpus,
}

figures = st.lists(st.floats(0, 1e6), min_size=1, max_size=40).map(np.array)


def is_at_most(errors: int, runs: int, rate: float) -> bool:
    return bool(binomtest(errors, runs, rate, alternative="greater").pvalue > 1e-3)


def direct_e(x: FloatArray, budget: float) -> float:
    return float(np.mean([np.prod(1 + s * (x / budget - 1)) for s in betting.MEAN_STAKES]))


class TestBettingEValues:
    def test_is_the_mean_of_the_running_products(self) -> None:
        x = np.array([0.01, 0.03, 0.02, 0.08])
        expected = [direct_e(x[: n + 1], BUDGET) for n in range(4)]
        np.testing.assert_allclose(betting.betting_e_values(x, BUDGET), expected, rtol=1e-12)

    def test_stays_one_on_the_budget(self) -> None:
        np.testing.assert_allclose(betting.betting_e_values(np.full(9, BUDGET), BUDGET), 1)

    def test_gross_faults_saturate_instead_of_overflowing(self) -> None:
        e_values = betting.betting_e_values(np.full(64, 1e300), 1e-300)
        assert (np.diff(e_values) >= 0).all()
        assert e_values[-1] == pytest.approx(betting.LARGEST_E)
        assert np.isfinite(e_values).all()
        assert betting.e_to_p(float(e_values[-1])) > 0

    def test_zeros_speak_for_the_budget(self) -> None:
        e_values = betting.betting_e_values(np.zeros(200), BUDGET)
        assert (np.diff(e_values) < 0).all()
        assert e_values[-1] > 0

    @given(figures, st.floats(1.01, 100))
    def test_grows_with_the_figures(self, x: FloatArray, factor: float) -> None:
        lower, higher = (
            betting.betting_e_values(x, 1.0),
            betting.betting_e_values(factor * x, 1.0),
        )
        assert (higher >= lower * (1 - 1e-9)).all()

    @given(figures, st.floats(1e-3, 1e3))
    def test_does_not_depend_on_the_unit(self, x: FloatArray, unit: float) -> None:
        np.testing.assert_allclose(
            betting.betting_e_values(x * unit, unit), betting.betting_e_values(x, 1.0), rtol=1e-6
        )

    @given(figures, st.randoms(use_true_random=False))
    def test_end_does_not_depend_on_the_order(self, x: FloatArray, random: object) -> None:
        np.testing.assert_allclose(
            betting.betting_e_values(np.sort(x), 1.0)[-1],
            betting.betting_e_values(x, 1.0)[-1],
            rtol=1e-6,
        )

    @pytest.mark.parametrize("budget", [0.0, -1.0, math.nan, math.inf])
    def test_refuses_a_budget_it_cannot_bet_against(self, budget: float) -> None:
        with pytest.raises(ValueError, match="budget above zero"):
            betting.betting_e_values([0.1], budget)

    def test_refuses_negative_figures(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            betting.betting_e_values([0.1, -1e-9], BUDGET)

    @pytest.mark.parametrize("name", HEAVY_TAILS)
    def test_false_alarms_at_the_budget_stay_under_alpha(self, name: str) -> None:
        rng, runs = np.random.default_rng(1), 4000
        alarms = sum(
            betting.betting_e_values(BUDGET * HEAVY_TAILS[name](rng, 32), BUDGET).max() >= 1 / ALPHA
            for _ in range(runs)
        )
        assert is_at_most(alarms, runs, ALPHA)

    @pytest.mark.parametrize("name", HEAVY_TAILS)
    def test_expectation_at_the_budget_is_at_most_one(self, name: str) -> None:
        """The defining property, at two chunks, where a mean can still be estimated."""
        rng = np.random.default_rng(2)
        e_values = [
            betting.betting_e_values(HEAVY_TAILS[name](rng, 2), 1.0)[-1] for _ in range(4000)
        ]
        assert np.mean(e_values) <= 1 + 4 * np.std(e_values) / math.sqrt(len(e_values))


class TestSignEValues:
    def test_rewards_the_side_the_rounds_fall_on(self) -> None:
        slow = betting.sign_e_values(np.full(6, math.log(0.8)), floor=0.9)
        expected = np.mean([(1 + s) ** 6 for s in (0.4, 0.7, 0.9)])
        assert slow.below[-1] == pytest.approx(expected)
        assert slow.below[-1] >= 20 > slow.below[-2], "a PR run decides in six rounds"
        assert slow.above[-1] < 0.1

    @given(st.lists(st.floats(-1, 1), min_size=1, max_size=24), st.floats(0.1, 2))
    def test_pass_is_the_mirror_of_fail(self, rounds: list[float], floor: float) -> None:
        edge = math.log(floor)
        # Mirrored as signs: 2·edge - d could round onto the edge.
        signs = np.sign(np.array(rounds) - edge)
        one, other = (betting.sign_e_values(edge + s, floor) for s in (signs, -signs))
        np.testing.assert_array_equal(one.below, other.above)
        np.testing.assert_array_equal(one.above, other.below)

    def test_a_round_on_the_floor_counts_against_both(self) -> None:
        both = betting.sign_e_values([math.log(0.9)], floor=0.9)
        assert both.below[0] == both.above[0] < 1

    def test_many_rounds_do_not_overflow(self) -> None:
        assert np.isfinite(betting.sign_e_values(np.full(5000, -1.0), 0.9).below).all()

    @pytest.mark.parametrize("floor", [0.0, -1.0, math.nan])
    def test_refuses_a_floor_that_is_no_ratio(self, floor: float) -> None:
        with pytest.raises(ValueError, match="floor"):
            betting.sign_e_values([0.0], floor)

    def test_false_alarms_with_the_median_on_the_floor_stay_under_alpha(self) -> None:
        rng, runs = np.random.default_rng(3), 4000
        alarms = np.zeros(4, dtype=int)
        for _ in range(runs):
            rounds = math.log(0.9) + 0.1 * rng.standard_t(1.5, 24)
            both = betting.sign_e_values(rounds, 0.9)
            alarms += [e.max() >= bar for bar in (20, 100) for e in both]
        assert all(is_at_most(int(n), runs, 1 / 20) for n in alarms[:2])
        assert all(is_at_most(int(n), runs, 1 / 100) for n in alarms[2:])


class TestTInterval:
    def test_is_students(self) -> None:
        x = np.array([1.0, 2.0, 4.0, 5.0])
        reach = t.ppf(1 - LEVEL, 3) * x.std(ddof=1) / 2
        assert stats.t_interval(x, LEVEL) == pytest.approx((3, 3 - reach, 3 + reach))

    def test_one_chunk_is_unbounded(self) -> None:
        assert stats.t_interval([0.1], LEVEL) == (0.1, -math.inf, math.inf)

    def test_equal_chunks_have_no_spread(self) -> None:
        """Ten times 0.1 has a standard deviation of 1e-17 in floating point."""
        interval = stats.t_interval(np.full(10, 0.1), LEVEL)
        assert interval.low == interval.high == interval.figure

    @pytest.mark.parametrize("bad", [[], [[0.1]], [math.nan], [0.1, math.inf]])
    def test_refuses_what_is_not_one_finite_figure_per_chunk(self, bad: list[float]) -> None:
        with pytest.raises(ValueError, match="figure"):
            stats.t_interval(bad, LEVEL)


class TestLogTInterval:
    def test_is_the_t_interval_of_the_logarithm(self) -> None:
        x = np.array([0.01, 0.02, 0.04, 0.05])
        factor = math.exp(t.ppf(1 - LEVEL, 3) * x.std(ddof=1) / (0.03 * 2))
        assert stats.log_t_interval(x, LEVEL) == pytest.approx((0.03, 0.03 / factor, 0.03 * factor))

    def test_edges(self) -> None:
        assert stats.log_t_interval([0.1], LEVEL) == (0.1, 0, math.inf)
        assert stats.log_t_interval([0.0, 0.0], LEVEL) == (0, 0, 0)
        assert stats.log_t_interval([0.1, 0.1, 0.1], LEVEL).high == pytest.approx(0.1)
        assert stats.log_t_interval([1e-9, 1.0], 1e-4).high == math.inf

    @given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=40))
    def test_reaches_higher_than_the_plain_one(self, x: list[float]) -> None:
        wide, plain = stats.log_t_interval(x, LEVEL), stats.t_interval(x, LEVEL)
        assert wide.high >= plain.high * (1 - 1e-9)
        assert 0 <= wide.low <= wide.figure * (1 + 1e-9)

    def test_refuses_negative_figures(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            stats.log_t_interval([-0.1, 0.1], LEVEL)


class TestTPValue:
    def test_is_two_sided_at_the_nearer_end_of_the_budget(self) -> None:
        x = np.array([1.0, 2.0, 4.0, 5.0])
        error = x.std(ddof=1) / 2
        expected = t.sf((3 - 1) / error, 3) + t.sf((3 + 1) / error, 3)
        assert stats.t_p_value(x, 1.0) == pytest.approx(expected)
        assert stats.t_p_value(-x, 1.0) == pytest.approx(expected)

    def test_edges(self) -> None:
        assert stats.t_p_value([9.0], 1.0) == 1
        assert stats.t_p_value([2.0, 2.0, 2.0], 1.0) == 0
        assert stats.t_p_value([1.0, 1.0, 1.0], 1.0) == 1
        assert stats.t_p_value([0.1, -0.1], 1.0) == pytest.approx(1, abs=0.1)

    @pytest.mark.parametrize("budget", [0.0, 0.1, 3.0])
    @pytest.mark.parametrize("n", [4, 16])
    def test_is_valid_at_the_budget_for_symmetric_chunks(self, budget: float, n: int) -> None:
        rng, runs = np.random.default_rng(4), 3000
        for chunks in (rng.standard_normal((runs, n)), rng.standard_t(3, (runs, n))):
            p = np.array([stats.t_p_value(budget + x, budget) for x in chunks])
            for alpha in (0.01, 0.1):
                assert is_at_most(int((p <= alpha).sum()), runs, alpha)


class TestShares:
    def test_design_effect_is_the_variance_ratio(self) -> None:
        shares = np.array([0.0, 0.1, 0.3, 0.4])
        expected = 100 * shares.var(ddof=1) / (0.2 * 0.8)
        assert token_shares.design_effect(shares, 100, 1.5) == pytest.approx(expected)

    @pytest.mark.parametrize("shares", [[0.0, 0.0, 0.0], [1.0, 1.0], [0.3], [0.2, 0.2, 0.2]])
    def test_design_effect_keeps_its_least(self, shares: list[float]) -> None:
        assert token_shares.design_effect(shares, 256, 4) == 4

    def test_design_effect_refuses_what_is_no_share(self) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            token_shares.design_effect([0.1, 1.1], 256, 4)
        with pytest.raises(ValueError, match="at least one token"):
            token_shares.design_effect([0.1], 0, 4)

    def test_clopper_pearson_is_the_exact_interval(self) -> None:
        exact = binomtest(7, 200).proportion_ci(1 - 2 * LEVEL, "exact")
        assert token_shares.clopper_pearson(7 / 200, 200, LEVEL) == pytest.approx((7 / 200, *exact))
        upper = beta.ppf(1 - LEVEL, 7 / 1.5 + 1, 193 / 1.5)
        assert token_shares.clopper_pearson(7 / 200, 200 / 1.5, LEVEL).high == pytest.approx(upper)

    def test_clopper_pearson_of_none_and_of_all(self) -> None:
        none, every = (token_shares.clopper_pearson(k, 100, LEVEL) for k in (0, 1))
        assert none == pytest.approx((0, 0, 1 - LEVEL ** (1 / 100)))
        assert every == pytest.approx((1, LEVEL ** (1 / 100), 1))

    @given(st.floats(0, 1), st.floats(0.5, 1e6))
    def test_clopper_pearson_holds_its_share(self, share: float, n: float) -> None:
        interval = token_shares.clopper_pearson(share, n, LEVEL)
        rounding = 1e-9
        assert 0 <= interval.low <= share + rounding
        assert share - rounding <= interval.high <= 1

    @pytest.mark.parametrize(("share", "n"), [(1.1, 10), (-0.1, 10), (0.5, 0), (math.nan, 10)])
    def test_clopper_pearson_refuses_nonsense(self, share: float, n: float) -> None:
        with pytest.raises(ValueError, match="no binomial interval"):
            token_shares.clopper_pearson(share, n, LEVEL)

    @pytest.mark.parametrize(
        ("least", "clustering", "n"),
        [(1.5, 0.0, 4), (1.5, 0.002, 32), (4.0, 0.002, 4), (4.0, 0.012, 4), (4.0, 0.012, 32)],
    )
    def test_upper_bound_covers_under_clustering_up_to_its_least_design_effect(
        self, least: float, clustering: float, n: int
    ) -> None:
        """Beta-binomial chunks of 256 tokens: their design effect is 1 + 255·clustering."""
        rng, runs, share, m_tok = np.random.default_rng(5), 2000, 0.02, 256
        misses = 0
        for _ in range(runs):
            rate = np.full(n, share)
            if clustering:
                spread = 1 / clustering - 1
                rate = rng.beta(share * spread, (1 - share) * spread, n)
            seen = rng.binomial(m_tok, rate) / m_tok
            effective_n = n * m_tok / token_shares.design_effect(seen, m_tok, least)
            misses += token_shares.clopper_pearson(seen.mean(), effective_n, LEVEL).high < share
        assert is_at_most(misses, runs, LEVEL)


class TestHolm:
    def test_steps_down(self) -> None:
        p = np.array([0.03, 0.001, 0.012, 0.9])
        np.testing.assert_array_equal(stats.holm(p, 0.05), [False, True, True, False])

    def test_stops_at_the_first_it_keeps(self) -> None:
        np.testing.assert_array_equal(stats.holm([0.04, 0.04], 0.05), [False, False])

    def test_one_is_no_family_and_none_is_none(self) -> None:
        assert stats.holm([0.01], 0.01).all()
        assert stats.holm([], 0.01).shape == (0,)

    @pytest.mark.parametrize("p", [[-0.1], [1.1], [math.nan]])
    def test_refuses_what_is_no_p_value(self, p: list[float]) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            stats.holm(p, 0.01)

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
    def test_lies_between_bonferroni_and_no_correction(self, p_values: list[float]) -> None:
        p = np.array(p_values)
        rejected = stats.holm(p, 0.05)
        assert (rejected >= (p <= 0.05 / p.size)).all()
        assert (rejected <= (p <= 0.05)).all()

    def test_e_values_become_p_values(self) -> None:
        assert [betting.e_to_p(e) for e in (0.0, 1.0, 100.0)] == [1, 1, 0.01]


class TestChunksNeeded:
    def test_is_the_formula(self) -> None:
        assert stats.chunks_needed(0.01, 0.02, 0.02) == math.ceil((2.6 * 0.02 / 0.01) ** 2)

    def test_edges(self) -> None:
        assert stats.chunks_needed(0.02, 0.01, 0.02) is None
        assert stats.chunks_needed(0.03, 0.01, 0.02) is None
        assert stats.chunks_needed(0.01, 0.0, 0.02) == 1
        assert stats.chunks_needed(math.nextafter(0.02, 0), 1e300, 0.02) is None

    @pytest.mark.parametrize("share", [0.0, 0.002, 0.004])
    def test_of_a_share_is_the_first_bound_under_the_budget(self, share: float) -> None:
        needed = token_shares.chunks_needed_share(share, 64, 0.005, LEVEL)
        assert needed is not None
        before, at = (
            token_shares.clopper_pearson(share, n * 64, LEVEL).high for n in (needed - 1, needed)
        )
        assert at < 0.005 <= before

    def test_of_a_share_over_its_budget_is_none(self) -> None:
        assert token_shares.chunks_needed_share(0.01, 64, 0.01, LEVEL) is None
        assert token_shares.chunks_needed_share(0.01, 64, 0.01 + 1e-12, LEVEL) is None
