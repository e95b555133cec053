"""Parts of a matrix: complete, disjoint, stable, balanced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import REFERENCE, Pair, expected_cost, plan_pairs, take_shard

TYPES = ("f16", "bf16", "q8_0", "q5_1", "q4_0", "turbo4", "turbo3")


def shards(pairs: list[Pair], count: int) -> list[list[Pair]]:
    return [take_shard(pairs, f"{number}/{count}") for number in range(1, count + 1)]


def load(pairs: list[Pair]) -> int:
    return sum(expected_cost(pair) for pair in pairs if pair != REFERENCE)


@given(st.lists(st.sampled_from(TYPES), min_size=1, unique=True), st.integers(1, 9))
def test_shards_are_the_matrix_dealt_out(types: list[str], count: int) -> None:
    pairs = plan_pairs(types, (), ())
    parts = shards(pairs, count)
    assert all(part[0] == REFERENCE for part in parts)
    dealt = [pair for part in parts for pair in part if pair != REFERENCE]
    assert sorted(dealt) == sorted(pairs[1:])
    assert all(part == [pair for pair in pairs if pair in part] for part in parts)
    loads = [load(part) for part in parts]
    assert max(loads) - min(loads) <= max(map(expected_cost, pairs))


def test_shards_do_not_depend_on_the_process() -> None:
    pairs = plan_pairs(("f16", "q8_0", "q4_0"), (), ())
    assert [" ".join(map(str, part)) for part in shards(pairs, 2)] == EXPECTED


EXPECTED = [
    "f16/f16 f16/q4_0 q4_0/f16 q4_0/q8_0 q4_0/q4_0",
    "f16/f16 f16/q8_0 q8_0/f16 q8_0/q8_0 q8_0/q4_0",
]
"""By hand: four cells of cost 4, two of 3 and two of 2, dealt in turn: 13 and 13."""


def test_no_shard_is_all() -> None:
    pairs = plan_pairs(("f16", "q8_0"), (), ())
    assert take_shard(pairs, None) == take_shard(pairs, "1/1") == pairs


@pytest.mark.parametrize(
    "word", ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/2/3", "1/", "½/2"]
)
def test_anything_else_is_refused(word: str) -> None:
    with pytest.raises(SettingsError, match="write i/n"):
        take_shard([REFERENCE], word)
