"""A kernel that is slower beyond a depth is found; linear growth never is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.numerics.kink import find

DEPTHS = tuple(range(0, 3584, 512))
POSITIVE = st.floats(1e-3, 1e3)


def times(base: float, each: float) -> list[float]:
    return [base + each * depth / 1024 for depth in DEPTHS]


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_growth_with_the_depth_is_no_kink(a: float, b: float, c: float, d: float) -> None:
    assert find(DEPTHS, times(a, b), times(c, d)) is None


@given(st.floats(1, 10), st.floats(1, 10), st.sampled_from((2048, 2560)))
def test_twice_the_time_beyond_a_depth_is_found_there(a: float, b: float, beyond: int) -> None:
    slow = [
        2 * time if depth >= beyond else time
        for depth, time in zip(DEPTHS, times(a, b), strict=True)
    ]
    found = find(DEPTHS, slow, times(a, b))
    assert found is not None
    assert found.depth == beyond
    assert found.factor == pytest.approx(2, rel=0.25)


def test_what_slows_f16_too_is_no_kink() -> None:
    slow = [4 * one if at > 3 else one for at, one in enumerate(times(1, 1))]
    assert find(DEPTHS, slow, slow) is None


def test_one_disturbed_depth_is_no_kink() -> None:
    seen = times(1, 1)
    seen[4] *= 10
    assert find(DEPTHS, seen, times(1, 1)) is None


def test_two_disturbed_depths_on_a_long_way_are_no_kink() -> None:
    """As seen on a GPU: two steps of three milliseconds that something else held up."""
    depths = tuple(range(0, 32768, 512))
    seen = [1 + 0.0001 * depth for depth in depths]
    held_up = [2 * one if at in (43, 44) else one for at, one in enumerate(seen)]
    assert find(depths, held_up, seen) is None
    kernel = [2 * one if at >= 43 and at != 46 else one for at, one in enumerate(seen)]
    found = find(depths, kernel, seen)
    assert found is not None, "and one depth at which f16 was held up hides no kernel"
    assert found.depth == depths[43]


def test_noise_of_a_machine_is_no_kink() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(2000):
        cell, reference = (
            np.array(times(1, each)) * np.exp(rng.normal(0, 0.05, len(DEPTHS)))
            for each in (1.0, 0.3)
        )
        found += find(DEPTHS, cell, reference) is not None
    assert found <= 2, "and a fresh process is asked before one is believed"


def test_few_depths_tell_nothing() -> None:
    assert find((0, 512, 1024), (1, 1, 4), (1, 1, 1)) is None
