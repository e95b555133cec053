"""Pairs, patterns, and the plan of a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import DEFAULT_TYPES, REFERENCE, Pair, plan_pairs

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=8)


def planned(**asked: list[str]) -> list[str]:
    whole = {"types": [], "pairs": [], "skip": [], **asked}
    return [str(pair) for pair in plan_pairs(whole["types"], whole["pairs"], whole["skip"])]


@given(names, names)
def test_a_pair_is_read_as_it_is_written(k: str, v: str) -> None:
    assert Pair.parse(str(Pair(k, v))) == Pair(k, v)


@pytest.mark.parametrize("text", ["", "q8_0", "/", "q8_0/", "/q4_0", "a/b/c", " / "])
def test_what_is_no_pair_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsError, match=r"is not a pair of cache types: write K/V"):
        Pair.parse(text)


def test_spaces_around_the_types_do_not_matter() -> None:
    assert Pair.parse(" q8_0 / turbo4 ") == Pair("q8_0", "turbo4")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*/*", True), ("q8_0/*", True), ("*/turbo?", True), ("*/turbo3", False), ("Q8_0/*", False),
     ("turbo4/q8_0", False)],
)  # fmt: skip
def test_patterns(pattern: str, expected: bool) -> None:
    assert Pair("q8_0", "turbo4").matches(pattern) is expected


def test_default_is_every_ordered_pair_of_the_default_types() -> None:
    plan = planned()
    assert len(plan) == len(set(plan)) == len(DEFAULT_TYPES) ** 2 == 16
    assert plan[0] == "f16/f16"
    assert plan[1] == "f16/q8_0"
    assert plan[4] == "q8_0/f16"


def test_types_are_rows_and_columns_in_the_order_given() -> None:
    assert planned(types=["q4_0", "f16", "q4_0"]) == [
        "f16/f16", "q4_0/q4_0", "q4_0/f16", "f16/q4_0",
    ]  # fmt: skip


def test_the_reference_is_always_a_cell_and_the_first() -> None:
    assert planned(types=["q8_0"]) == ["f16/f16", "q8_0/q8_0"]
    assert planned(pairs=["q8_0/q4_0"]) == ["f16/f16", "q8_0/q4_0"]
    assert planned(types=["f16", "q8_0"], skip=["f16/*"]) == ["f16/f16", "q8_0/f16", "q8_0/q8_0"]


def test_pairs_replace_the_product() -> None:
    assert planned(types=["q5_1"], pairs=["q8_0/q4_0", "q8_0/q4_0"]) == ["f16/f16", "q8_0/q4_0"]


def test_a_skip_that_matches_nothing_is_a_typing_error() -> None:
    with pytest.raises(SettingsError, match=r"--kv-skip q9_0/\* matches no cell of this run"):
        planned(skip=["q9_0/*"])


def test_a_skip_of_the_matrix_does_not_forbid_single_cells() -> None:
    """A failure tells how to run its cell again; the file's skip list still applies there."""
    assert planned(pairs=["q8_0/q4_0"], skip=["q4_0/*"]) == ["f16/f16", "q8_0/q4_0"]


@given(st.lists(names, max_size=5), st.lists(names, max_size=5))
def test_the_plan_has_no_cell_twice(types: list[str], others: list[str]) -> None:
    plan = plan_pairs(types, [f"{k}/{v}" for k, v in zip(types, others, strict=False)], [])
    assert len(plan) == len(set(plan))
    assert plan[0] == REFERENCE
