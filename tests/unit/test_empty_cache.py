"""What is left of a token's time when what grows with the depth is taken away."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.numerics import empty_cache

TOKENS, DEEP = 512, 4096


def time_of(fixed: float, grows: float, depth: int) -> float:
    """Nanoseconds of a token, where a test's own tokens are read too."""
    return fixed + grows * (depth + TOKENS)


def ratio(cell: tuple[float, float], reference: tuple[float, float]) -> float | None:
    sides = [[time_of(*one, depth) for depth in (0, DEEP)] for one in (cell, reference)]
    grows = [empty_cache.growth(TOKENS, 0, DEEP, (one[0], one[1])) for one in sides]
    assert grows[0] is not None
    assert grows[1] is not None
    b, a = (round(one[0] * TOKENS * 1000) for one in sides)
    found = empty_cache.log_ratios([(a, b, b, a)], TOKENS, 0, (1000 * grows[0], 1000 * grows[1]))
    return None if found is None else math.exp(found[0])


@given(st.floats(1, 100), st.floats(0, 0.01), st.floats(0, 0.1), st.sampled_from([1.0, 1.5, 2.0]))
def test_only_what_does_not_grow_counts(
    fixed: float, grows: float, more: float, slower: float
) -> None:
    """However much more the pair's type costs to read."""
    found = ratio((slower * fixed, grows + more), (fixed, grows))
    if found is not None:
        assert found == pytest.approx(1 / slower, rel=1e-3)


def test_where_there_is_nothing_but_growth_nothing_is_said() -> None:
    assert ratio((1.0, 1.0), (1.0, 0.001)) is None


def test_two_depths_that_are_close_say_nothing_of_growth() -> None:
    assert empty_cache.growth(512, 0, 768, (1.0, 2.0)) is None
    assert empty_cache.growth(512, 1024, 1024, (1.0, 2.0)) is None


def test_a_deeper_test_that_was_faster_is_no_growth() -> None:
    assert empty_cache.growth(512, 0, 4096, (2.0, 1.0)) == 0
