"""Verdicts: their words, their order in time, and their error rates over a whole gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest  # type: ignore[import-untyped, unused-ignore]

from pytest_kvquant.checks.family import holm_exit, settled
from pytest_kvquant.checks.gate_text import failure_text
from pytest_kvquant.checks.kl_mean import judge_kl_mean
from pytest_kvquant.checks.kl_tail import judge_kl_tail
from pytest_kvquant.checks.ln_ppl_ratio import judge_ln_ppl
from pytest_kvquant.checks.top1_flips import judge_top1_flips
from pytest_kvquant.numerics.arrays import F64 as FloatArray
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate

RULES = Rules()
M_TOK = 256

Judge = Callable[[Any, float, Rules], Gate]


def tail(x: Any, budget: float, rules: Rules) -> Gate:
    return judge_kl_tail(x, budget, rules, m_tok=M_TOK, over=1.0)


def flips(x: Any, budget: float, rules: Rules) -> Gate:
    return judge_top1_flips(x, budget, rules, m_tok=M_TOK)


JUDGES: dict[str, Judge] = {
    "kl_mean": judge_kl_mean,
    "kl_tail": tail,
    "ln_ppl_ratio": judge_ln_ppl,
    "top1_flips": flips,
}
SHARES = [tail, flips]
every_judge = pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)

shares = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)
budgets = st.floats(1e-3, 0.5)


def is_at_most(errors: int, runs: int, rate: float) -> bool:
    """See test_stats: one run in a thousand at exactly `rate` would be called more."""
    return bool(binomtest(errors, runs, rate, alternative="greater").pvalue > 1e-3)


def spread(n: int, mean: float, relative: float = 0.1) -> FloatArray:
    """n figures of that mean that alternate by ±relative."""
    return mean * (1 + relative * np.where(np.arange(n) % 2, 1, -1))


class TestRules:
    def test_defaults_are_those_of_a_pull_request(self) -> None:
        assert RULES.schedule == (4, 8, 16, 32)
        assert RULES.level == 0.0025
        assert RULES.e_threshold == 100

    def test_looks_beyond_the_cap_are_taken_at_it(self) -> None:
        assert Rules(cap=8).schedule == (4, 8)
        assert Rules(cap=12).schedule == (4, 8, 12)
        assert Rules(cap=2).schedule == (2,)
        assert Rules(cap=12).level == RULES.level

    def test_a_fixed_number_is_one_look_with_all_of_alpha(self) -> None:
        fixed = Rules(early=False, cap=20)
        assert fixed.schedule == (20,)
        assert fixed.level == fixed.alpha

    @pytest.mark.parametrize(
        "wrong", [{"alpha": 0}, {"alpha": 1}, {"looks": ()}, {"looks": (8, 4)}, {"cap": 0}]
    )
    def test_refuses_nonsense(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"alpha|looks|cap"):
            Rules(**wrong)


@every_judge
class TestEveryGate:
    def test_clear_pass_at_the_first_look(self, judge: Judge) -> None:
        gate = judge(spread(32, 0.002), 0.1, RULES)
        assert (gate.verdict, gate.decided_at, gate.chunks) == ("pass", 4, 32)
        assert gate.high is not None
        assert gate.figure < gate.high < gate.budget
        assert gate.chunks_needed is None

    def test_no_pass_between_looks(self, judge: Judge) -> None:
        gates = [judge(spread(n, 0.002), 0.1, RULES) for n in (1, 2, 3)]
        assert {gate.verdict for gate in gates} == {"inconclusive"}
        assert all(gate.decided_at is None for gate in gates)

    def test_gross_fault_fails(self, judge: Judge) -> None:
        gate = judge(spread(32, 0.4), 0.02, RULES)
        assert gate.verdict == "fail"
        assert gate.decided_at is not None
        assert gate.decided_at <= 5
        assert gate.p_value <= gate.alpha / 48

    def test_on_the_budget_is_inconclusive(self, judge: Judge) -> None:
        gate = judge(spread(32, 0.1), 0.1, RULES)
        assert (gate.verdict, gate.decided_at) == ("inconclusive", None)

    def test_an_open_gate_says_how_many_more(self, judge: Judge) -> None:
        gate = judge(spread(8, 0.09, 0.9), 0.1, Rules(cap=8))
        assert gate.verdict == "inconclusive"
        assert gate.chunks_needed is not None
        assert gate.chunks_needed > 8

    def test_chunks_beyond_the_cap_are_not_looked_at(self, judge: Judge) -> None:
        figures = np.append(spread(8, 0.1), np.full(90, 0.9))
        gate = judge(figures, 0.1, Rules(cap=8))
        assert gate == judge(figures[:8], 0.1, Rules(cap=8))

    @pytest.mark.parametrize("n", [1, 2])
    def test_one_or_two_fixed_chunks_decide_nothing(self, judge: Judge, n: int) -> None:
        gate = judge(spread(n, 0.1), 0.2, Rules(early=False, cap=n))
        assert gate.verdict == "inconclusive"

    def test_a_fixed_number_decides_once(self, judge: Judge) -> None:
        rules = Rules(early=False, cap=10)
        for figures, verdict in ((spread(10, 0.002), "pass"), (spread(10, 0.5), "fail")):
            assert judge(figures[:9], 0.01, rules).verdict == "inconclusive"
            gate = judge(figures, 0.01, rules) if verdict == "fail" else judge(figures, 0.1, rules)
            assert (gate.verdict, gate.decided_at) == (verdict, 10)

    @pytest.mark.parametrize(("mean", "verdict"), [(0.099, "pass"), (0.101, "fail")])
    def test_census_decides_by_the_plain_mean(
        self, judge: Judge, mean: float, verdict: str
    ) -> None:
        rules = Rules(cap=128, census=True)
        figures = spread(128, mean, 0.9)
        assert judge(figures[:127], 0.1, rules).verdict == "inconclusive"
        gate = judge(figures, 0.1, rules)
        assert (gate.verdict, gate.decided_at, gate.census) == (verdict, 128, True)

    def test_a_fixed_number_is_judged_by_what_all_chunks_come_to(self, judge: Judge) -> None:
        """An excess of the first chunks that the later ones take back is none of the whole."""
        figures = np.concatenate([np.full(8, 0.4), np.full(24, 0.001)])
        if judge is judge_ln_ppl:
            pytest.skip("a t interval is of all chunks in any case")
        assert judge(figures, 0.11, RULES).verdict == "fail"
        once = judge(figures, 0.11, Rules(cap=32, early=False))
        assert once.verdict != "fail"
        assert once.p_value == 1.0

    def test_a_budget_of_zero_means_identical(self, judge: Judge) -> None:
        same, different = np.zeros(8), np.array([0, 0, 1e-12, 0, 0, 0, 0, 0])
        assert judge(same, 0, RULES).decided_at == 4
        assert judge(same, 0, RULES).verdict == "pass"
        assert judge(same[:3], 0, RULES).verdict == "inconclusive"
        gate = judge(different, 0, RULES)
        assert (gate.verdict, gate.decided_at) == ("fail", 3)
        assert gate.p_value < 1e-300

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_non_finite_evidence_is_another_verdict(self, judge: Judge, bad: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            judge([0.1, bad], 0.1, RULES)

    @pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
    def test_refuses_a_budget_that_is_none(self, judge: Judge, bad: float) -> None:
        with pytest.raises(ValueError, match="budget"):
            judge([0.1], bad, RULES)

    def test_no_chunks_are_no_evidence(self, judge: Judge) -> None:
        with pytest.raises(ValueError, match="per chunk"):
            judge([], 0.1, RULES)

    def test_survives_a_journey_through_json(self, judge: Judge) -> None:
        for figures in ([0.1], spread(8, 0.1), np.ones(32)):
            gate = judge(figures, 0.1, RULES)
            assert msgspec.json.decode(msgspec.json.encode(gate), type=Gate) == gate

    @given(x=shares, later=shares, budget=budgets)
    def test_what_is_decided_stays_decided(
        self, judge: Judge, x: FloatArray, later: FloatArray, budget: float
    ) -> None:
        before, after = judge(x, budget, RULES), judge(np.append(x, later), budget, RULES)
        if before.decided_at is not None:
            same = ("verdict", "decided_at", "figure", "low", "high")
            assert all(getattr(before, key) == getattr(after, key) for key in same)
            assert after.p_value <= before.p_value

    @given(x=shares, budget=budgets)
    def test_same_evidence_same_gate(self, judge: Judge, x: FloatArray, budget: float) -> None:
        assert judge(x, budget, RULES) == judge(x.copy(), budget, RULES)

    @given(x=shares, budget=budgets)
    def test_interval_holds_its_figure(self, judge: Judge, x: FloatArray, budget: float) -> None:
        gate = judge(x, budget, RULES)
        rounding = 1e-9
        assert gate.low is None or gate.low <= gate.figure + rounding
        assert gate.high is None or gate.high >= gate.figure - rounding

    @given(x=shares, budget=budgets)
    def test_a_larger_budget_never_turns_into_a_fail(
        self, judge: Judge, x: FloatArray, budget: float
    ) -> None:
        if judge(x, budget, RULES).verdict != "fail":
            assert judge(x, 2 * budget, RULES).verdict != "fail"


class TestKlMean:
    def test_bit_identical_logits_pass(self) -> None:
        gate = judge_kl_mean(np.zeros(4), 0.02, RULES)
        assert (gate.verdict, gate.figure, gate.high) == ("pass", 0, 0)
        assert judge_kl_mean([0.0], 0.02, Rules(early=False, cap=1)).verdict == "pass"

    def test_rounding_below_zero_is_clipped(self) -> None:
        assert judge_kl_mean([-1e-9, 0.01, 0.01, 0.01], 0.02, RULES).figure > 0.0075 - 1e-12

    def test_one_chunk_can_fail(self) -> None:
        gate = judge_kl_mean([50.0], 0.02, RULES)
        assert (gate.verdict, gate.decided_at) == ("fail", 1)
        assert gate.high is None

    @given(
        st.lists(st.floats(1e-6, 10), min_size=8, max_size=32),
        st.floats(1e-3, 1),
    )
    def test_scaled_up_far_it_fails_and_scaled_down_far_it_does_not(
        self, x: list[float], budget: float
    ) -> None:
        figures = np.array(x) / np.mean(x) * budget
        assert judge_kl_mean(1e6 * figures, budget, RULES).verdict == "fail"
        assert judge_kl_mean(1e-6 * figures, budget, RULES).verdict != "fail"

    def test_evidence_grows_after_a_fail_and_rests_after_a_pass(self) -> None:
        """A run that stopped at E = 100 could not survive the correction for 48 figures."""
        short, long = (judge_kl_mean(np.full(n, 0.06), 0.02, RULES) for n in (8, 12))
        assert short.decided_at == long.decided_at
        assert long.p_value < short.p_value
        passed = judge_kl_mean(np.append(spread(4, 0.002), np.full(28, 9.0)), 0.02, RULES)
        assert passed.verdict == "pass"
        assert passed.p_value == 1


class TestShares:
    @pytest.mark.parametrize("judge", SHARES)
    def test_no_token_of_few_is_no_proof(self, judge: Judge) -> None:
        gate = judge(np.zeros(4), 0.001, RULES)
        assert gate.verdict == "inconclusive"
        assert gate.chunks_needed is not None
        assert judge(np.zeros(4), 0.05, RULES).verdict == "pass"

    def test_no_token_is_proof_where_the_logits_are_identical(self) -> None:
        for kl, verdict in ((np.zeros(4), "pass"), (np.full(4, 1e-9), "inconclusive")):
            gates = (
                judge_kl_tail(np.zeros(4), 0.001, RULES, m_tok=M_TOK, over=1.0, kl=kl),
                judge_top1_flips(np.zeros(4), 0.001, RULES, m_tok=M_TOK, kl=kl),
            )
            assert [gate.verdict for gate in gates] == [verdict, verdict]

    def test_all_tokens_hit_is_handled(self) -> None:
        gate = flips(np.ones(4), 0.5, RULES)
        assert (gate.figure, gate.high) == (1, 1)
        assert gate.verdict == "inconclusive"

    def test_kl_must_be_of_the_same_chunks(self) -> None:
        with pytest.raises(ValueError, match="same chunks"):
            judge_top1_flips(np.zeros(4), 0.1, RULES, m_tok=M_TOK, kl=np.zeros(3))

    @pytest.mark.parametrize("judge", SHARES)
    def test_refuses_what_is_no_share(self, judge: Judge) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            judge([0.1, 1.1], 0.1, RULES)
        with pytest.raises(ValueError, match="between 0 and 1"):
            judge([0.1], 1.1, RULES)


class TestLnPpl:
    def test_is_two_sided(self) -> None:
        worse, better = (judge_ln_ppl(sign * spread(4, 0.5), 0.02, RULES) for sign in (1, -1))
        assert worse.verdict == better.verdict == "fail"
        assert worse.p_value == better.p_value

    def test_fails_only_at_looks(self) -> None:
        figures = spread(8, 0.5)
        assert judge_ln_ppl(figures[:3], 0.02, RULES).verdict == "inconclusive"
        assert judge_ln_ppl(figures, 0.02, RULES).decided_at == 4

    @given(st.lists(st.floats(-1, 1), min_size=4, max_size=32), st.floats(1e-3, 0.5))
    def test_p_value_is_never_bolder_than_the_verdict(self, x: list[float], budget: float) -> None:
        gate = judge_ln_ppl(x, budget, RULES)
        if gate.p_value < gate.alpha * (1 - 1e-9):
            assert gate.verdict in ("fail", "pass")
        if gate.verdict == "fail":
            assert gate.p_value <= 2 * gate.alpha * (1 + 1e-9)


class TestWholeRun:
    def test_a_fail_alone_is_not_kept_in_a_large_family(self) -> None:
        healthy = judge_kl_mean(spread(4, 0.002), 0.02, RULES)
        weak = judge_kl_mean(np.full(5, 0.08), 0.02, RULES)
        assert weak.verdict == "fail"
        assert holm_exit([weak]) == (True,)
        assert holm_exit([weak] + [healthy] * 47) == (False,) * 48

    def test_a_gross_fail_is_kept_in_its_place(self) -> None:
        healthy = judge_kl_mean(spread(4, 0.002), 0.02, RULES)
        gross = judge_kl_mean(np.full(5, 0.4), 0.02, RULES)
        assert holm_exit([healthy] * 30 + [gross] + [healthy] * 17).index(True) == 30

    def test_a_census_counts_by_its_evidence(self) -> None:
        """A mean just over the budget is a fact about these chunks, and no evidence."""
        slight = judge_kl_mean(spread(128, 0.101, 0.9), 0.1, Rules(cap=128, census=True))
        assert (slight.verdict, slight.census) == ("fail", True)
        assert holm_exit([slight]) == (False,)
        clear = judge_kl_mean(spread(128, 0.13, 0.1), 0.1, Rules(cap=128, census=True))
        assert clear.verdict == "fail"
        assert holm_exit([slight] * 47 + [clear]) == (False,) * 47 + (True,)

    def test_no_gates_no_fails(self) -> None:
        assert holm_exit([]) == ()

    def test_drawing_goes_on_until_the_run_would_keep_the_fail(self) -> None:
        figures = np.full(32, 0.06)
        gates = [judge_kl_mean(figures[:n], 0.02, RULES) for n in range(1, 33)]
        alone = next(n for n, gate in enumerate(gates) if settled(gate, 1))
        in_run = next(n for n, gate in enumerate(gates) if settled(gate, 48))
        assert gates[alone].verdict == "fail"
        assert alone < in_run < 16
        assert holm_exit([gates[in_run]] + [gates[0]] * 47)[0]

    def test_open_is_not_settled_and_pass_is(self) -> None:
        assert not settled(judge_kl_mean(spread(3, 0.002), 0.02, RULES), 1)
        assert settled(judge_kl_mean(spread(4, 0.002), 0.02, RULES), 48)
        census = judge_kl_mean(spread(128, 0.101), 0.1, Rules(cap=128, census=True))
        assert settled(census, 48)


class TestFailureText:
    def test_of_a_fail(self) -> None:
        gate = judge_kl_mean([0.06, 0.1, 0.06, 0.1, 0.08, 0.0], 0.02, RULES)
        assert failure_text(gate, "q8_0/turbo4").splitlines() == [
            "q8_0/turbo4: mean KL fails: 0.0800 nats against a budget of 0.0200 nats",
            "  interval  0.0428 nats to 0.150 nats (99.5 %)",
            "  chunks    6 used, decided at 5",
            "  evidence  E = 145, p = 0.0069 (alpha 0.01)",
            "  rule      Mean KL fails when the betting e-value against its budget reaches 100, "
            "and passes when the upper end of its log-scale t interval is under the budget at "
            "4, 8, 16 or 32 chunks.",
        ]

    def test_of_an_inconclusive_says_what_it_would_take(self) -> None:
        gate = judge_ln_ppl(spread(8, 0.015, 0.9), 0.02, Rules(cap=8))
        text = failure_text(gate, "q8_0/q4_0")
        assert "against a budget of ±0.0200 (ln)" in text
        assert "8 used, not decided" in text
        assert f"about {gate.chunks_needed} chunks" in text

    def test_of_a_share_speaks_in_percent(self) -> None:
        text = failure_text(tail(spread(8, 0.02, 0.9), 0.01, RULES), "f16/q4_0")
        assert "2.00% against a budget of 1.00%" in text
        assert "over 1 nats" in text
        assert "no number of chunks" in text

    def test_of_one_chunk_has_no_interval(self) -> None:
        assert "none, too few chunks" in failure_text(judge_kl_mean([9.0], 0.01, RULES), "a/b")

    def test_of_a_census_and_of_identity_names_the_rule(self) -> None:
        census = judge_kl_mean(spread(128, 0.101), 0.1, Rules(cap=128, census=True))
        assert "the plain mean decides" in failure_text(census, "a/b")
        assert "means identical" in failure_text(judge_ln_ppl([0.1], 0, RULES), "a/b")

    @every_judge
    @settings(max_examples=30)
    @given(x=shares, budget=st.floats(0, 1))
    def test_always_says_all(self, judge: Judge, x: FloatArray, budget: float) -> None:
        gate = judge(x, budget, RULES)
        text = failure_text(gate, "q8_0/turbo4")
        for word in ("q8_0/turbo4", "interval", "budget", f"{gate.chunks} used", gate.rule):
            assert word in text
        assert ("to pass" in text) == (gate.verdict == "inconclusive")


class TestErrorRates:
    """Whole gates at the boundary, early decisions on, seeds fixed."""

    @pytest.mark.parametrize("sigma", [0.4, 1.5])
    def test_false_fail_of_mean_kl_at_its_budget(self, sigma: float) -> None:
        rng, runs = np.random.default_rng(11), 1500
        gates = [judge_kl_mean(_lognormal(rng, sigma), 1.0, RULES) for _ in range(runs)]
        assert is_at_most(sum(g.verdict == "fail" for g in gates), runs, 0.01)

    @pytest.mark.parametrize(("excess", "rate"), [(1.2, 0.01), (1.5, 0.001)])
    def test_false_pass_of_mean_kl_beyond_its_budget(self, excess: float, rate: float) -> None:
        """Chunks that vary by two thirds of their mean; see the heavy-tailed limits below."""
        rng, runs = np.random.default_rng(12), 1500
        gates = [judge_kl_mean(excess * _lognormal(rng, 0.65), 1.0, RULES) for _ in range(runs)]
        assert is_at_most(sum(g.verdict == "pass" for g in gates), runs, rate)

    def test_false_pass_under_heavy_tails_is_bounded_only_far_from_the_budget(self) -> None:
        """What log-scale t cannot promise: few chunks of a heavy tail do not show the tail."""
        rng, runs = np.random.default_rng(13), 1000
        rates = [
            sum(
                judge_kl_mean(k * _lognormal(rng, 1.5), 1.0, RULES).verdict == "pass"
                for _ in range(runs)
            )
            for k in (1.0, 3.0)
        ]
        assert rates[0] > 0.05 * runs
        assert is_at_most(rates[1], runs, 0.01)

    @pytest.mark.parametrize("budget", [0.05, 2.0])
    def test_false_fail_of_ln_ppl_at_its_budget(self, budget: float) -> None:
        """Alpha a side: where the budget is small against the noise, both sides count."""
        rng, runs = np.random.default_rng(14), 700
        sides = 2 if budget < 1 else 1
        for draw in (rng.standard_normal, lambda n: rng.standard_t(3, n)):
            gates = [judge_ln_ppl(budget + draw(32), budget, RULES) for _ in range(runs)]
            assert is_at_most(sum(g.verdict == "fail" for g in gates), runs, sides * 0.01)
            assert is_at_most(sum(g.verdict == "pass" for g in gates), runs, 0.01)
            assert is_at_most(sum(g.p_value <= 0.01 for g in gates), runs, 0.01)

    def test_false_fail_of_ln_ppl_under_skew_is_a_few_alpha(self) -> None:
        """What t cannot promise: skew towards the budget's inside (here of 1) triples alpha."""
        rng, runs, budget = np.random.default_rng(17), 1500, 2.0
        skewed = [budget + (4 - rng.gamma(4, 1, 32)) / 2 for _ in range(runs)]
        fails = sum(judge_ln_ppl(x, budget, RULES).verdict == "fail" for x in skewed)
        assert not is_at_most(fails, runs, 0.01)
        assert is_at_most(fails, runs, 0.04)

    @pytest.mark.parametrize(
        ("judge", "clustering"), [(flips, 0.002), (tail, 0.012)], ids=["flips", "tail"]
    )
    def test_shares_at_their_budget(self, judge: Judge, clustering: float) -> None:
        """Tokens clustered up to the least design effect: 1.5 for flips, 4 for the tail."""
        rng, runs, budget = np.random.default_rng(15), 1000, 0.01
        gates = [judge(_clustered(rng, budget, clustering), budget, RULES) for _ in range(runs)]
        assert is_at_most(sum(g.verdict == "fail" for g in gates), runs, 0.01)
        assert is_at_most(sum(g.verdict == "pass" for g in gates), runs, 0.01)

    def test_family_of_48_figures_on_their_budgets(self) -> None:
        """Twelve cells of four gates; chunk effects make the gates of a cell go together."""
        rng, runs = np.random.default_rng(16), 200
        alone = kept = 0
        for _ in range(runs):
            gates: list[Gate] = []
            for _ in range(12):
                effect = _lognormal(rng, 0.3)
                gates += [
                    judge_kl_mean(effect * _lognormal(rng, 0.8), 1.0, RULES),
                    tail(_clustered(rng, 0.01, 0.02), 0.01, RULES),
                    flips(_clustered(rng, 0.02, 0.005), 0.02, RULES),
                    judge_ln_ppl(0.5 + effect * rng.standard_t(4, 32), 0.5, RULES),
                ]
            alone += any(gate.verdict == "fail" for gate in gates)
            kept += any(holm_exit(gates))
        assert alone > kept, "the correction has something to correct"
        assert is_at_most(kept, runs, 0.01)


def _lognormal(rng: np.random.Generator, sigma: float, n: int = 32) -> FloatArray:
    """n chunks of mean 1 in expectation."""
    return rng.lognormal(-sigma * sigma / 2, sigma, n)


def _clustered(
    rng: np.random.Generator, share: float, clustering: float, n: int = 32
) -> FloatArray:
    """Beta-binomial shares of n chunks: their design effect is 1 + (M_TOK - 1)·clustering."""
    concentration = 1 / clustering - 1
    rate = rng.beta(share * concentration, (1 - share) * concentration, n)
    return rng.binomial(M_TOK, rate) / M_TOK
