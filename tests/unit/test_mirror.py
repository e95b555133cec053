"""The mirror of a cache's cells: who owns what, and what a query may see."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.engine.child.mirror import Mirror


def filled(*, unified: bool = True, streams: int = 1, count: int = 6) -> Mirror:
    mirror = Mirror(unified=unified)
    mirror.given(np.arange(count, dtype=np.int32), np.zeros(count, np.int32))
    mirror.written(np.arange(count), 16, streams)
    return mirror


def seen(mirror: Mirror, position: int, sequence: int, first: int, cells: int, window: int):
    one = np.array([position]), np.array([sequence])
    return mirror.seen(*one, first, cells, np.array([window]))[0]


def test_a_query_sees_what_is_not_behind_it() -> None:
    mirror = filled()
    assert seen(mirror, 3, 0, 0, 16, 0).tolist() == [True] * 4 + [False] * 12
    assert seen(mirror, 5, 0, 0, 16, 2).tolist() == [False] * 4 + [True] * 2 + [False] * 10
    assert not seen(mirror, 5, 1, 0, 16, 0).any()


def test_a_row_for_which_no_token_waits_is_an_error() -> None:
    mirror = filled()
    with pytest.raises(LookupError, match="cell 9"):
        mirror.written(np.array([9]), 16, 1)


def test_a_context_shift_moves_positions_and_remembers_by_how_much() -> None:
    mirror = filled()
    mirror.remove(0, 1, 3)
    mirror.shift(0, 3, -1, -2)
    assert mirror.positions(0).tolist() == [0, 1, 2, 3]
    assert mirror.moved[:6].tolist() == [0, 0, 0, -2, -2, -2]
    mirror.turned()
    assert not mirror.moved.any()


def test_what_moves_before_the_beginning_is_gone() -> None:
    mirror = filled()
    mirror.shift(0, 0, -1, -2)
    assert mirror.positions(0).tolist() == [0, 1, 2, 3]


def test_dividing_positions_moves_them_back() -> None:
    mirror = filled()
    mirror.divide(0, 0, -1, 2)
    assert mirror.positions(0).tolist() == [0, 0, 1, 1, 2, 2]
    assert mirror.moved[:6].tolist() == [0, -1, -1, -2, -2, -3]


def test_copies_within_a_unified_cache_share_cells_until_one_is_forgotten() -> None:
    mirror = filled()
    mirror.copy(0, 3, 2, -1)
    assert mirror.positions(3).tolist() == [2, 3, 4, 5]
    mirror.keep(3)
    assert mirror.positions(0).size == 0
    assert mirror.positions(3).tolist() == [2, 3, 4, 5]
    mirror.remove(-1, -1, -1)
    assert mirror.positions(3).size == 0


def test_copies_across_streams_take_the_cells_along() -> None:
    mirror = filled(unified=False, streams=2)
    mirror.copy(0, 1, -1, -1)
    assert seen(mirror, 5, 1, 16, 16, 0).sum() == 6
    assert seen(mirror, 5, 0, 0, 16, 0).sum() == 6


def test_models_with_a_recurrent_state_take_as_many_tokens_of_every_sequence() -> None:
    mirror = Mirror(unified=True, equal=True)
    mirror.given(np.array([0, 1, 2, 9], np.int32), np.array([0, 0, 0, 1], np.int32))
    first = mirror.written(np.array([0, 1]), 16, 1)
    assert list(zip(first.positions, first.sequences, strict=True)) == [(0, 0), (9, 1)]
    rest = mirror.written(np.array([2, 3]), 16, 1)
    assert rest.positions.tolist() == [1, 2]


def test_a_restored_sequence_is_seen_in_cells_that_nobody_knows() -> None:
    mirror = filled()
    state = mirror.saved(0)
    mirror.clear()
    mirror.restore(state, -1)
    assert mirror.positions(0).tolist() == [0, 1, 2, 3, 4, 5]
    assert not seen(mirror, 9, 0, 0, 16, 0).any()
    assert [mirror.seen_restored(at, 0, 0) for at in (0, 3, 9)] == [1, 4, 6]
    assert mirror.seen_restored(6, 0, 3) == 2
    assert mirror.seen_restored(9, 1, 0) == 0
    assert mirror.free(0, 16).all()


def test_another_slot_takes_the_place_of_what_was_there() -> None:
    mirror = filled()
    mirror.restore(mirror.saved(0), 1)
    assert mirror.positions(0).tolist() == mirror.positions(1).tolist()
    mirror.restore({0: np.arange(2)}, 0)
    assert mirror.positions(0).tolist() == [0, 1]
    assert mirror.free(0, 6).all()


def test_operations_reach_restored_sequences() -> None:
    mirror = Mirror(unified=True)
    mirror.restore({0: np.arange(8)}, -1)
    mirror.remove(0, 2, 4)
    mirror.shift(0, 4, -1, -2)
    assert mirror.positions(0).tolist() == [0, 1, 2, 3, 4, 5]
    mirror.copy(0, 1, 3, -1)
    mirror.divide(1, 0, -1, 2)
    assert mirror.positions(1).tolist() == [1, 2, 2]
    mirror.keep(1)
    assert mirror.positions(0).size == 0
    assert mirror.saved(-1).keys() == {1}
    mirror.remove(-1, -1, -1)
    assert mirror.positions(1).size == 0
