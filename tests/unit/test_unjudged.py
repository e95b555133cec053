"""An operation that nobody understands is counted where attention rests on it, and only there."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any, cast
from unittest.mock import Mock

import pytest

from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.mirror import Mirrors
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.oracle import Oracle
from pytest_kvquant.engine.child.unjudged import Unjudged

ADDRESSES = count(1)


class Made:
    """A node of a graph, as far as its way matters."""

    def __init__(self, op: str, *sources: Made, name: str = "", view_of: Made | None = None):
        self.op, self.name, self.address = op, name, next(ADDRESSES)
        self.made_of, self.root = sources, view_of or self
        self.original, self.elements = self, 1

    @property
    def sources(self) -> Any:
        return iter(self.made_of)

    def source(self, number: int) -> Made | None:
        return self.made_of[number] if number < len(self.made_of) else None


def weight(name: str) -> Made:
    return Made("NONE", name=f"blk.0.{name}.weight")


residual = Made("FANCY")
projected = Made("MUL_MAT", weight("attn_q"), residual)
before = Made("FANCY", projected)
absorbed = Made("MUL_MAT", weight("attn_k_b"), before)
cache = Made("NONE", name="cache_k_l0")
keys = Made("VIEW", cache, view_of=cache)
attention = Made("FLASH_ATTN_EXT", Made("RESHAPE", absorbed), keys)
behind = Made("FANCY", attention)
beside = Made("FANCY", residual)
output = Made("MUL_MAT", weight("attn_output"), behind)


def counted(*strange: Made, ends: Made = output) -> int:
    unknown: Counter[str] = Counter()
    watched = Unjudged(unknown)
    for one in strange:
        watched.add(cast("Node", one))
    watched.rests(cast("Node", attention))
    watched.rests(cast("Node", ends))
    return unknown["FANCY"]


@pytest.mark.parametrize(
    ("strange", "counts"),
    [
        pytest.param(before, 1, id="between a projection and attention"),
        pytest.param(behind, 1, id="between attention and the output projection"),
        pytest.param(residual, 0, id="before the projections"),
        pytest.param(beside, 0, id="beside attention"),
        pytest.param(Made("FANCY", keys), 1, id="reads the cache"),
        pytest.param(Made("FANCY", beside, view_of=cache), 1, id="writes to the cache"),
    ],
)
def test_what_attention_rests_on_is_counted(strange: Made, counts: int) -> None:
    assert counted(strange) == counts


def test_each_is_counted_once_and_another_graph_begins_anew() -> None:
    assert counted(before, behind) == 2
    unknown: Counter[str] = Counter()
    watched = Unjudged(unknown)
    watched.add(cast("Node", before))
    watched.begins()
    watched.rests(cast("Node", attention))
    assert not unknown


def test_what_a_recurrent_state_rests_on_is_none_of_attentions() -> None:
    """Its rows are written by the operation that writes the cache."""
    oracle = Oracle(Mock(), Facts(), Mirrors((), unified=True), seed=0)
    state = Made("NONE", name="cache_r_l0")
    strange = Made("FANCY", residual)
    oracle.begins()
    oracle.computed(cast("Node", strange), 0)
    oracle.computed(cast("Node", Made("SET_ROWS", strange, view_of=state)), 0)
    assert not oracle.unknown
