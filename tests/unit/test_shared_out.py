"""What is shared out among the pairs of a run: every type still meets everything."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.coverage_plan import ON_EVERY_PAIR, shared_out
from pytest_kvquant.session.zoo import asked_for, planned

TYPES = ("f16", "q8_0", "q5_1", "q4_0")
MATRIX = [Pair(k, v) for k, v in itertools.product(TYPES, TYPES)]
NAMES = [f"scenario_{number}" for number in range(17)]

pairs_of_any_run = st.lists(
    st.builds(Pair, st.sampled_from(TYPES), st.sampled_from(TYPES)), min_size=1, unique=True
)


@given(pairs_of_any_run)
def test_each_type_on_each_side_plays_everything(pairs: list[Pair]) -> None:
    for taken in shared_out(NAMES, pairs).values():
        assert {pair.k for pair in taken} == {pair.k for pair in pairs}
        assert {pair.v for pair in taken} == {pair.v for pair in pairs}
        assert (REFERENCE in taken) == (REFERENCE in pairs)


def test_a_pair_of_a_matrix_plays_a_part_and_every_pair_plays_something() -> None:
    shared = shared_out(NAMES, MATRIX)
    counts = [sum(pair in taken for taken in shared.values()) for pair in MATRIX]
    assert counts[MATRIX.index(REFERENCE)] == len(NAMES)
    others = [count for pair, count in zip(MATRIX, counts, strict=True) if pair != REFERENCE]
    assert min(others) >= 1
    assert sum(others) < 0.45 * len(NAMES) * len(others)


def test_a_pair_alone_plays_all() -> None:
    assert all(shared_out(NAMES, [Pair("q8_0", "q4_0")]).values())


def test_what_has_killed_some_pairs_alone_is_on_every_pair() -> None:
    (name,) = ON_EVERY_PAIR
    assert shared_out([name], MATRIX)[name] == set(MATRIX)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        (Settings(profile="quick"), "off"),
        (Settings(), "handful"),
        (Settings(profile="nightly"), "all"),
        (Settings(coverage="off"), "off"),
        (Settings(zoo="off", profile="nightly"), "off"),
        (Settings(zoo="on"), "handful"),
        (Settings(zoo="gemma2-256"), "gemma2-256"),
    ],
)
def test_the_zoo_goes_with_how_much_is_examined(settings: Settings, asked: str) -> None:
    assert asked_for(settings) == asked


def test_the_handful_is_shared_out_unless_it_is_asked_for() -> None:
    members = ["a", "b", "c"]
    assert len(planned(Settings(), members, MATRIX)) < 0.5 * 3 * len(MATRIX)
    assert len(planned(Settings(zoo="on"), members, MATRIX)) == 3 * len(MATRIX)
