"""Every moment belongs to one part: what is told never makes a run longer or shorter."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.engine.parent.timesheet import Segment, Span, Timesheet, attribute, since

PARTS = st.sampled_from(["comparison", "waiting", "other"])


class Clock:
    """Nanoseconds as a test sets them."""

    now = 0

    def __call__(self) -> int:
        return self.now


@st.composite
def timelines(draw: st.DrawFn) -> tuple[list[Segment], list[Span]]:
    edges = sorted(draw(st.lists(st.integers(0, 1000), min_size=2, unique=True)))
    own = [Segment(("cells", draw(PARTS)), start, end) for start, end in pairwise(edges)]
    marks = sorted(draw(st.lists(st.integers(0, 1200), unique=True)))
    told = [
        Span(draw(st.sampled_from(["decode", "transfer"])), start, end)
        for start, end in list(pairwise(marks))[::2]
    ]
    return own, told


@given(timelines())
def test_the_sum_is_that_of_this_process(timeline: tuple[list[Segment], list[Span]]) -> None:
    own, told = timeline
    found = attribute(own, told)
    assert sum(found.values()) == sum(one.end - one.start for one in own)
    assert all(spent > 0 for spent in found.values())


@given(timelines())
def test_decoding_counts_whatever_was_done_beside_it(
    timeline: tuple[list[Segment], list[Span]],
) -> None:
    own, told = timeline
    first, last = own[0].start, own[-1].end
    decoded = sum(
        max(0, min(last, one.end) - max(first, one.start)) for one in told if one.part == "decode"
    )
    assert attribute(own, told).get(("cells", "decode"), 0) == decoded


def test_other_work_of_a_worker_counts_where_it_was_waited_for() -> None:
    own = [Segment(("cells", "comparison"), 0, 10), Segment(("cells", "waiting"), 10, 20)]
    assert attribute(own, [Span("transfer", 5, 15)]) == {
        ("cells", "comparison"): 10,
        ("cells", "waiting"): 5,
        ("cells", "transfer"): 5,
    }


def test_parts_within_parts_and_what_is_left() -> None:
    clock = Clock()
    timesheet = Timesheet(clock)
    clock.now = 1
    with timesheet.scope("cells"):
        with timesheet.part("probe"):
            clock.now = 3
            with timesheet.part("comparison"):
                clock.now = 7
            clock.now = 8
        clock.now = 10
    clock.now = 15
    assert timesheet.seconds() == {
        ("run", "other"): 6e-9,
        ("cells", "probe"): 3e-9,
        ("cells", "comparison"): 4e-9,
        ("cells", "other"): 2e-9,
    }


def test_who_watches_is_told_what_begins() -> None:
    timesheet = Timesheet(Clock())
    told: list[str] = []
    timesheet.watch = told.append
    with timesheet.scope("explanation"), timesheet.part("probe"):
        pass
    assert told == ["explanation", "probe"]


def test_a_worker_that_decodes_on_is_counted_when_it_says_so() -> None:
    """Rows of one batch are compared while the next one is decoded: its span comes later."""
    clock = Clock()
    timesheet = Timesheet(clock)
    with timesheet.scope("cells"):
        with timesheet.part("waiting"):
            clock.now = 10
        timesheet.told([("decode", 0, 8), ("transfer", 8, 9)])
        with timesheet.part("comparison"):
            clock.now = 14
        with timesheet.part("waiting"):
            clock.now = 20
        timesheet.told([("decode", 9, 19)])
    assert timesheet.seconds() == pytest.approx(
        {("cells", "decode"): 18e-9, ("cells", "transfer"): 1e-9, ("cells", "waiting"): 1e-9}
    )


def test_an_error_does_not_leave_a_part_open() -> None:
    clock = Clock()
    timesheet = Timesheet(clock)

    def lose() -> None:
        with timesheet.scope("cells"), timesheet.part("probe"):
            clock.now = 2
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        lose()
    clock.now = 5
    assert timesheet.seconds() == {("cells", "probe"): 2e-9, ("run", "other"): 3e-9}


def test_what_came_before_is_entered_and_differences_are_taken() -> None:
    clock = Clock()
    timesheet = Timesheet(clock)
    timesheet.enter("run", "start", 1.5)
    before = timesheet.seconds()
    with timesheet.scope("cells"):
        clock.now = 4
    assert before == {("run", "start"): 1.5}
    assert since(before, timesheet.seconds()) == {("cells", "other"): 4e-9}
