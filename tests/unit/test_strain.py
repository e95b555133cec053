"""A machine that begins to suffer, and searches that stop before it does more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.machine.strain import Condition, Strain, read_condition
from pytest_kvquant.speed.ceiling import PRECISION, STEP, _ascend

GIB = 1 << 30


def watch(*conditions: Condition) -> Strain:
    told: Iterator[Condition] = iter(conditions)
    return Strain(total=32 * GIB, read=lambda: next(told))


CALM = Condition(available=20 * GIB, swapped_out=5 * GIB, pressure="normal")


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (CALM, None),
        (CALM._replace(available=2 * GIB), None),
        (CALM._replace(available=GIB), "are kept for the system"),
        (CALM._replace(swapped_out=5 * GIB + (1 << 20)), None),
        (CALM._replace(swapped_out=6 * GIB), "went to swap since it began"),
        (CALM._replace(pressure="warning"), None),
        (CALM._replace(pressure="critical"), "memory pressure critical"),
        (Condition(available=20 * GIB), None),
    ],
)
def test_when_a_machine_suffers(now: Condition, words: str | None) -> None:
    found = watch(CALM, now).complaint()
    assert (found is None) if words is None else (found is not None and words in found)


def test_a_machine_that_was_low_from_the_start_is_not_blamed_on_us() -> None:
    low = Condition(available=GIB, pressure="critical")
    assert watch(low, low).complaint() is None
    assert watch(low, low._replace(available=GIB // 4)).complaint() is not None


def test_this_machine_has_a_condition() -> None:
    assert read_condition().available > 0
    assert Strain().complaint() is None


@given(limit=st.integers(0, 1 << 20), highest=st.integers(1, 1 << 12))
def test_an_ascent_never_tries_more_than_twice_what_fits(limit: int, highest: int) -> None:
    tried: list[int] = []

    def fits(context: int) -> bool:
        tried.append(context)
        return context <= limit

    highest *= STEP
    found = _ascend(highest, fits, lambda: False)
    assert found <= min(limit, highest)
    assert max(tried) <= max(2 * found, 16 * STEP)
    if limit >= highest:
        assert found == highest
    elif limit >= STEP:
        assert min(limit, highest) - found <= max(STEP, PRECISION * found) + STEP
    else:
        assert found == 0


def test_an_ascent_ends_where_the_machine_suffers() -> None:
    tried: list[int] = []

    def fits(context: int) -> bool:
        tried.append(context)
        return context < 64 * STEP

    assert _ascend(1 << 20, fits, lambda: tried[-1] >= 64 * STEP) == 32 * STEP
    assert tried == [16 * STEP, 32 * STEP, 64 * STEP]
