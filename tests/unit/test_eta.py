"""The forecast of a run: right where the guesses are right, and learning where they are not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.numerics import compiled
from pytest_kvquant.numerics.eta import CALM, Kind, error, known_calm, left, pace
from pytest_kvquant.report.progress import Clock, folded, within
from pytest_kvquant.session import pace as remembering

seconds = st.floats(0.01, 1e4)
units = st.floats(0, 1000)
kinds = st.lists(
    st.builds(
        lambda planned, guess, part, spent, begun, share: Kind(
            planned, guess, planned * part, spent * planned * part, begun, share
        ),
        units, seconds, st.floats(0, 1), seconds, st.floats(0, 100), st.floats(0, 1),
    ),
    max_size=6,
)  # fmt: skip


def test_before_anything_is_known_it_is_the_guess() -> None:
    assert left([Kind(16, 2.0), Kind(16, 3.0)]) == pytest.approx(80)


@given(kinds)
def test_it_is_never_negative(found: list[Kind]) -> None:
    assert left(found) >= 0
    assert pace(found) > 0


@given(st.floats(0.5, 8.0), st.integers(4, 60))
def test_a_slow_machine_shows_in_kinds_that_have_not_begun(factor: float, cells: int) -> None:
    truth = factor * (cells - 1) * 10.0 + factor * cells * 30.0
    told = left([Kind(cells, 10.0, done=1, spent=10.0 * factor), Kind(cells, 30.0)])
    assert error(told, truth) < 0.3


def test_a_unit_that_says_how_far_it_is_is_believed_more_and_more() -> None:
    # Guessed 10 s a unit, in truth 40.
    off = [
        error(left([Kind(1, 10.0, begun=40 * part, share=part)]), 40 * (1 - part))
        for part in (0.3, 0.6, 0.9)
    ]
    assert off == sorted(off, reverse=True)
    assert off[-1] < 0.2


def test_what_happens_once_makes_no_machine_slow_or_fast() -> None:
    # The first run compiled for 5 s, the next one does not.
    quick = Kind(1, 5.0, done=1, spent=0.4, steady=False)
    assert left([quick, Kind(8, 2.0)]) == pytest.approx(16)
    assert left([quick._replace(steady=True), Kind(8, 2.0)]) < 8


def test_what_an_earlier_run_took_is_not_thrown_over_by_one_quick_part() -> None:
    kinds = [Kind(1, 1.0, done=1, spent=0.3), Kind(16, 2.0)]
    assert error(left(kinds), 32.0) > 0.3
    assert error(left(kinds, known_calm(kinds)), 32.0) < 0.1
    # A machine that is half as fast all through still shows.
    slow = [Kind(16, 2.0, done=4, spent=16.0)]
    assert error(left(slow, known_calm(slow)), 48.0) < 0.1


def test_what_is_finished_takes_no_more_time() -> None:
    assert left([Kind(4, 1.0, done=4, spent=9.0), Kind(0, 5.0)]) == 0


@pytest.mark.parametrize("seed", range(20))
def test_after_a_tenth_of_a_run_of_unequal_cells_it_is_within_thirty_percent(seed: int) -> None:
    draw = random.Random(seed)
    machine = draw.choice((0.3, 1.0, 4.0))
    cells = draw.choice((16, 25, 49))
    quality = [machine * 4.0 * draw.uniform(0.75, 1.25) for _ in range(cells)]
    speed = [machine * 6.0 * draw.uniform(0.75, 1.25) for _ in range(cells)]
    whole = sum(quality) + sum(speed)
    passed, at = 0.0, 0
    while passed < whole / 10:
        passed += quality[at] + speed[at]
        at += 1
    told = left([Kind(cells, 5.0, at, sum(quality[:at])), Kind(cells, 5.0, at, sum(speed[:at]))])
    assert error(told, whole - passed) < 0.3


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_said_before_a_pair_is_done_unless_an_earlier_run_told() -> None:
    for trusted in (False, True):
        hands = Hands()
        clock = Clock(hands)
        planned = {"first": Kind(1, 10.0), "cell": Kind(3, 5.0)}
        clock.plan(planned, trusted=trusted)
        clock.begin("first", None)
        hands.now = 2.0
        told = clock.left()
        assert (told == pytest.approx(23)) if trusted else told is None
        hands.now = 40.0
        clock.end(1)
        calm = known_calm(planned.values()) if trusted else CALM
        factor = pace([Kind(1, 10.0, 1, 40.0)], calm)
        assert clock.left() == pytest.approx(3 * 5.0 * factor, rel=0.01)


def test_the_time_of_a_phase_within_another_is_its_own() -> None:
    hands = Hands()
    clock = Clock(hands)
    clock.plan({"first": Kind(1, 1.0), "reference": Kind(8, 1.0)})
    clock.begin("first", None)
    hands.now = 2.0
    clock.begin("reference", None)
    hands.now = 10.0
    clock.end(8)
    hands.now = 13.0
    clock.end(1)
    assert clock.rates() == {"first": 5.0, "reference": 1.0}


def test_rates_are_remembered_by_conditions(tmp_path: Path) -> None:
    one, other = remembering.key("model", 1), remembering.key("model", 2)
    assert remembering.remembered(tmp_path, one) == {}
    remembering.remember(tmp_path, one, {"cell": 2.0})
    remembering.remember(tmp_path, one, {"speed": 3.0})
    remembering.remember(tmp_path, other, {"cell": 9.0})
    assert remembering.remembered(tmp_path, one) == {"cell": 2.0, "speed": 3.0}
    (tmp_path / remembering.NAME).write_text("{")
    assert remembering.remembered(tmp_path, one) == {}


def test_a_run_that_compiled_is_not_the_measure_of_the_next(tmp_path: Path) -> None:
    assert remembering.LOOPS == compiled.FOLDER
    assert remembering.kept_loops(tmp_path) == 0
    (tmp_path / compiled.FOLDER / "stamp").mkdir(parents=True)
    (tmp_path / compiled.FOLDER / "stamp" / "visit.nbi").touch()
    (tmp_path / compiled.FOLDER / "stamp" / "visit.1.nbc").touch()
    assert remembering.kept_loops(tmp_path) == 1


@given(st.text(alphabet="ab ,", max_size=90), st.integers(40, 100))
def test_what_is_left_is_never_cut(text: str, width: int) -> None:
    """At 80 columns the line ended "greedy text, batch shapes, about"."""
    left = ", about 12 min 30 s left"
    line = within(text, left, width)
    assert line.endswith(left)
    assert len(line) <= width


def test_a_line_that_stays_breaks_between_its_parts() -> None:
    line = "kvquant: 2/3 q8_0/q8_0  inconclusive  KL 0.00407  top-1 95.69%  4 min, about 40 s left"
    assert folded(line, 120) == line
    first, second = folded(line, 80).splitlines()
    assert first == "kvquant: 2/3 q8_0/q8_0  inconclusive  KL 0.00407  top-1 95.69%"
    assert second == "         4 min, about 40 s left"


def test_pairs_timed_together_tell_what_is_left_before_the_first_is_done() -> None:
    """The speed of nine pairs: nothing was said for nine tenths of the run."""
    now = 0.0
    clock = Clock(lambda: now)
    clock.plan({"speed": Kind(11, 1.0)}, trusted=False)
    clock.begin("speed", None, 9)
    now = 5.0  # a process was started
    clock.share(0.0)
    assert clock.left() is None
    told = []
    for step in range(1, 10):
        now = 5.0 + 4.0 * step
        clock.share(step / 10)
        told.append((clock.left(), 45.0 - now + 2 * 45 / 9))
    for said, truth in told:
        assert said is not None
        assert said == pytest.approx(truth, rel=0.3)
    now = 45.0
    clock.end(9)
    assert clock.left() == pytest.approx(10, rel=0.1)
