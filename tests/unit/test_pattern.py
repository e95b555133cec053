"""Where rows differ and what they hold instead, on made-up quantizers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pytest_kvquant.engine.child.pattern import ALLOWED, Grid, RowPattern, explained, find

GRID = Grid(width=64, unit=32)
ROUNDING = 7e-3
POSITIONS = np.arange(100, 180, dtype=np.int32)


@pytest.fixture
def rows() -> Any:
    """80 rows of 2 heads of 64 elements."""
    return np.random.default_rng(0).standard_normal((80, 128)).astype(np.float32)


def none(_rows: Any) -> Iterator[Any]:
    yield from ()


def look(
    stored: Any, expected: Any, *, clean: bool = True, others: Any = none
) -> RowPattern | None:
    return find(stored, expected, POSITIONS, GRID, ROUNDING, clean=clean, others=others)


def test_equal_rows_show_nothing(rows: Any) -> None:
    assert look(rows, rows) is None


def test_what_rounding_explains_shows_nothing(rows: Any) -> None:
    """Levels Δ apart, Δ² = 12 × rounding, from a source and from the same source as f16."""
    step = np.float32(np.sqrt(12 * ROUNDING))
    ours, theirs = (
        np.round(source / step) * step
        for source in (rows, rows.astype(np.float16).astype(np.float32))
    )
    seen = float(np.square(ours - theirs).sum() / np.square(theirs).sum())
    assert explained(ROUNDING) / 3 < seen < 3 * explained(ROUNDING)
    assert look(ours, theirs) is None


def test_one_block_quantized_the_other_way_round_shows_nothing(rows: Any) -> None:
    """Two right answers to a tie for the scale, about twice the rounding apart."""
    other = rows.copy()
    other[7, 32:64] += np.sqrt(2 * ROUNDING) * rows[8, 32:64]
    assert look(other, rows) is None


def test_the_bound_is_just_beyond_what_is_allowed(rows: Any) -> None:
    factor = np.sqrt(ALLOWED * explained(ROUNDING))
    assert look((1 + 0.9 * factor) * rows, rows) is None
    found = look((1 + 1.1 * factor) * rows, rows)
    assert found is not None
    assert found.holds == "scaled"


def spoiled(rows: Any, edit: Any, *, start: int = 0) -> Any:
    stored = rows.copy()
    stored[start:] = edit(rows[start:].copy())
    return stored


def zero_block(part: Any) -> Any:
    part[:, 32:64] = 0
    return part


def negative_block(part: Any) -> Any:
    part[:, 96:] *= -1
    return part


@pytest.mark.parametrize(
    ("edit", "units", "holds", "value"),
    [
        (zero_block, (1,), "zero", None),
        (negative_block, (3,), "scaled", -1.0),
        (lambda part: 0.25 * part, (0, 1, 2, 3), "scaled", 0.25),
        (lambda part: np.roll(part, 64, axis=1), (0, 1, 2, 3), "head", -1),
        (lambda part: np.roll(part, 32, axis=1), (0, 1, 2, 3), "block", -1),
        (lambda part: part[:, ::-1], (0, 1, 2, 3), "other", None),
    ],
)
def test_what_is_held_instead(rows: Any, edit: Any, units: Any, holds: str, value: Any) -> None:
    found = look(spoiled(rows, edit, start=30), rows)
    assert found is not None
    assert (found.units, found.first, found.last, found.share) == (units, 130, 179, 1.0)
    assert found.holds == holds
    assert found.value in (value, 1)  # two heads: one further and one back are the same exchange


def test_rows_of_their_neighbours(rows: Any) -> None:
    found = look(np.roll(rows, -1, axis=0), rows)
    assert found is not None
    assert (found.holds, found.value) == ("position", 1)


def test_another_reading_that_makes_it_right_is_named(rows: Any) -> None:
    def others(part: Any) -> Iterator[Any]:
        yield "rotation", 64, rows[part], rows[part] + 1
        yield "type", "iq4_nl", rows[part], rows[part]

    found = look(rows[:, ::-1].copy(), rows, others=others)
    assert found is not None
    assert (found.holds, found.value) == ("type", "iq4_nl")


class TestLaterLayers:
    """Where the attention's error has come in."""

    @pytest.fixture
    def propagated(self, rows: Any) -> Any:
        noise = np.random.default_rng(1).standard_normal(rows.shape).astype(np.float32)
        return rows + 0.15 * noise

    def test_an_error_everywhere_is_no_pattern(self, rows: Any, propagated: Any) -> None:
        assert look(propagated, rows, clean=False) is None

    def test_a_block_that_stands_out_is_one(self, rows: Any, propagated: Any) -> None:
        found = look(negative_block(propagated), rows, clean=False)
        assert found is not None
        assert (found.units, found.holds) == ((3,), "scaled")

    def test_whole_rows_halved_or_gone(self, rows: Any, propagated: Any) -> None:
        halved, gone = (look(factor * propagated, rows, clean=False) for factor in (0.5, 0))
        assert halved is not None
        assert gone is not None
        assert (halved.holds, gone.holds) == ("scaled", "zero")
