"""Speed rounds: what decides, what does not, and how steady a machine has to be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.numerics import rounds
from pytest_kvquant.numerics.rounds import RoundRules

PR = RoundRules(least=6, most=24, threshold=20)
NIGHTLY = RoundRules(least=9, most=24, threshold=100)
RATIOS = st.floats(0.01, 10)


@given(st.tuples(*[st.integers(1, 10**12)] * 4), st.floats(0.5, 2))
def test_a_drift_within_a_round_cancels(times: tuple[int, ...], drift: float) -> None:
    a1, b1, b2, a2 = times
    drifting = (a1, b1 * drift, b2 * drift**2, a2 * drift**3)
    assert rounds.log_ratio(*drifting) == pytest.approx(rounds.log_ratio(*times), abs=1e-9)


@pytest.mark.parametrize(("rules", "count"), [(PR, 6), (NIGHTLY, 9)])
def test_unanimous_rounds_decide_at_the_least_count(rules: RoundRules, count: int) -> None:
    below = [math.log(0.5)] * 24
    decided = rounds.decide(below, 0.6, rules)
    assert (decided.verdict, decided.rounds) == ("fail", count)
    assert decided.e_below >= rules.threshold
    assert rounds.decide(below, 0.4, rules).verdict == "pass"
    assert rounds.decide(below[: count - 1], 0.6, rules).verdict == "inconclusive"


@given(st.lists(RATIOS, min_size=1, max_size=24), RATIOS)
def test_mirrored_rounds_get_the_mirrored_verdict(ratios: list[float], floor: float) -> None:
    logs = [math.log(ratio) for ratio in ratios]
    mirror = {"pass": "fail", "fail": "pass", "inconclusive": "inconclusive"}
    one = rounds.decide(logs, floor, PR)
    other = rounds.decide([-log for log in logs], 1 / floor, PR)
    if all(not math.isclose(log, math.log(floor), abs_tol=1e-9) for log in logs):
        assert other.verdict == mirror[one.verdict]


@given(st.lists(RATIOS, min_size=6, max_size=24), st.lists(RATIOS, max_size=6))
def test_later_rounds_do_not_undo_a_verdict(ratios: list[float], later: list[float]) -> None:
    logs = [math.log(ratio) for ratio in ratios]
    decided = rounds.decide(logs, 0.7, PR)
    if decided.verdict != "inconclusive":
        assert rounds.decide([*logs, *map(math.log, later)], 0.7, PR) == decided


def test_one_disturbed_round_is_one_round() -> None:
    steady = [math.log(0.9)] * 12
    mild, wild = list(steady), list(steady)
    mild[3], wild[3] = math.log(0.69), math.log(1e-6)
    assert rounds.decide(mild, 0.7, PR) == rounds.decide(wild, 0.7, PR)


def test_a_cliff_takes_three_rounds_of_three() -> None:
    assert rounds.is_cliff([math.log(0.49)] * 3)
    assert not rounds.is_cliff([math.log(0.49)] * 2)
    assert not rounds.is_cliff([math.log(0.49), math.log(0.51), math.log(0.1), math.log(0.1)])


def test_steadiness_sees_a_drop_and_a_spread() -> None:
    assert rounds.steadiness([100] * 12).steady
    throttling = rounds.steadiness([100 * 1.02**number for number in range(12)])
    assert throttling.drop == pytest.approx(1 - 1.02**-11)
    assert not throttling.steady
    assert not rounds.steadiness([100, 130] * 6).steady
    warming_up = rounds.steadiness([100 * 0.995**number for number in range(12)])
    assert warming_up.drop == 0


@pytest.mark.parametrize(
    ("cell", "reference", "steady", "verdict"),
    [
        ([80, 85, 84, 83, 82, 81], [100] * 6, True, "fail"),
        ([80, 91, 84, 83, 82, 81], [100] * 6, True, "pass"),
        ([80, 85, 84, 83, 82, 81], [89] * 6, True, "inconclusive"),
        ([80, 85, 84, 83, 82, 81], [100] * 6, False, "inconclusive"),
        ([80, 85, 84, 83, 82], [100] * 6, True, "inconclusive"),
    ],
)
def test_an_absolute_floor_needs_a_fast_f16(
    cell: list[float], reference: list[float], steady: bool, verdict: str
) -> None:
    found = rounds.judge_absolute(cell, reference, floor=90, stored_reference=100, steady=steady)
    assert found == verdict
