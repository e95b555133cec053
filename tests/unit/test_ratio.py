"""The ratio of what a cell costs to what it must cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvquant.numerics import ratio, stats

LOOKS = (4, 8, 16, 32)
LEVEL = 0.01 / 4


def chunks(true: float, scatter: float, seed: int, n: int = 32) -> tuple[object, object]:
    """Chunks whose KL differs by a factor of five, and a cell that costs ``true`` times as much."""
    random = np.random.default_rng(seed)
    healthy = np.exp(random.normal(-5, 0.4, n))
    return healthy * true * np.exp(random.normal(0, scatter, n)), healthy


def judge(true: float, scatter: float, seed: int, n: int = 32) -> ratio.Ratio:
    return ratio.judge(*chunks(true, scatter, seed, n), looks=LOOKS, level=LEVEL)


def test_healthy_cells_pass_and_do_not_fail() -> None:
    told = [judge(1.02, 0.08, seed) for seed in range(300)]

    assert sum(one.verdict == "pass" for one in told) >= 285
    assert not any(one.verdict == "fail" for one in told)


@pytest.mark.parametrize(("true", "most"), [(4.0, 8), (2.0, 8), (1.5, 16), (0.6, 16)])
def test_faults_fail_and_need_few_chunks(true: float, most: int) -> None:
    told = [judge(true, 0.08, seed) for seed in range(200)]

    assert all(one.verdict == "fail" for one in told)
    assert float(np.median([one.decided_at or 99 for one in told])) <= most


def test_no_ratio_beyond_the_widest_limit_passes() -> None:
    told = [judge(1.35, 0.25, seed) for seed in range(300)]

    assert sum(one.verdict == "pass" for one in told) <= 3


def test_healthy_chunks_that_scatter_are_decided_at_the_last_look() -> None:
    """Eight chunks of a decode path, 8 % over: nothing is left to wait for."""
    measured, healthy = chunks(1.08, 0.12, 5, n=8)
    told = ratio.judge(measured, healthy, looks=(8,), level=LEVEL, limit=1.15, widest=1.5)
    early = ratio.judge(measured, healthy, looks=(8, 16), level=LEVEL, limit=1.15, widest=1.5)

    assert (told.verdict, told.decided_at) == ("pass", 8)
    assert told.high > ratio.allowed(stats.Interval(told.figure, told.low, told.high), 1.15, 1.5)
    assert early.verdict == "inconclusive"


def test_too_much_scatter_is_undecided_not_passed() -> None:
    assert judge(1.0, 0.9, 1).verdict == "inconclusive"


def test_a_ratio_at_the_limit_is_called_a_fault_as_rarely_as_promised() -> None:
    told = [judge(ratio.LIMIT, 0.1, seed) for seed in range(1000)]

    assert sum(one.verdict == "fail" for one in told) <= 20


def test_the_interval_holds_the_ratio_as_often_as_promised() -> None:
    missed = 0
    for seed in range(1000):
        x, y = chunks(1.2, 0.2, seed, 16)
        now = ratio.interval(np.asarray(x), np.asarray(y), 0.025)
        missed += not now.low <= 1.2 * math.exp(0.2**2 / 2) <= now.high

    assert missed <= 90


@given(st.floats(0.1, 10), st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_units_do_not_matter(unit: float, seed: int) -> None:
    x, y = (np.asarray(one) for one in chunks(1.3, 0.1, seed))
    ours = ratio.judge(x * unit, y * unit, looks=LOOKS, level=LEVEL)
    theirs = ratio.judge(x, y, looks=LOOKS, level=LEVEL)

    assert ours.verdict == theirs.verdict
    assert ours.figure == pytest.approx(theirs.figure)


def test_what_costs_nothing_is_held_to_the_floor() -> None:
    zero = np.zeros(8)
    quiet = ratio.judge(zero + 1e-6, zero, looks=LOOKS, level=LEVEL, floor=1e-5)
    loud = ratio.judge(zero + 1e-3, zero, looks=LOOKS, level=LEVEL, floor=1e-5)

    assert (quiet.verdict, loud.verdict) == ("pass", "fail")


def test_a_single_look_is_a_single_look() -> None:
    x, y = chunks(1.5, 0.05, 3, 7)
    told = ratio.judge(x, y, looks=(7,), level=0.01)

    assert told.verdict == "fail"
    assert told.decided_at == 7


def test_looks_to_come_have_their_share_of_the_evidence() -> None:
    """Whoever stops at the first look that is good enough has looked as often as was planned."""
    x, y = chunks(1.5, 0.05, 3, 4)
    first = ratio.judge(x, y, looks=LOOKS, level=LEVEL)
    capped = ratio.judge(x, y, looks=(4,), level=LEVEL, planned=4)
    alone = ratio.judge(x, y, looks=(4,), level=LEVEL)

    assert first.p_value == capped.p_value == pytest.approx(4 * alone.p_value)


def test_chunks_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="same chunks"):
        ratio.judge([1.0, 2.0], [1.0], looks=LOOKS, level=LEVEL)


def test_one_sided_p() -> None:
    assert stats.one_sided_p([1.0]) == 1.0
    assert stats.one_sided_p([1.0, 1.0]) == 0.0
    assert stats.one_sided_p([-1.0, -1.0]) == 1.0
    assert stats.one_sided_p([1.0, 2.0, 3.0]) == pytest.approx(0.0371, abs=1e-4)
