"""What is looked at of a node, and of a model: edges, every stream, a layer of each kind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.engine.child.attention_inputs import Inputs, Parameters, choose
from pytest_kvquant.engine.child.edges import edges
from pytest_kvquant.engine.child.judge_attention import corner_of
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.quality.coverage_plan import level, sampled


@given(st.integers(1, 5000), st.integers(0, 50))
def test_edges_are_tails_and_multiples_and_the_rows_before_them(rows: int, seed: int) -> None:
    found = edges(np.random.default_rng(seed), rows)
    assert {0, rows - 1} <= found <= set(range(rows))
    for step in (32, 256):
        assert rows <= step or {step - 1, step} <= found


def test_later_multiples_have_their_turn() -> None:
    seen = set().union(*(edges(np.random.default_rng(seed), 512) for seed in range(50)))
    assert {63, 64, 95, 96, 480} <= seen


@pytest.mark.parametrize(("rows", "streams"), [(1, 8), (9, 4), (64, 2)])
def test_every_stream_of_few_rows_is_looked_at(rows: int, streams: int) -> None:
    found = choose(np.random.default_rng(0), 8, rows, streams, 6)
    assert found.streams == list(range(streams))


def test_of_many_rows_one_stream_between_is() -> None:
    between = {choose(np.random.default_rng(seed), 8, 64, 5, 6).streams[1] for seed in range(40)}
    assert between == {1, 2, 3}


def test_a_layer_of_each_kind_is_examined() -> None:
    """Of Gemma 3's 26 layers every sixth has no window, the first and the last have one."""
    windowed = [number % 6 != 5 for number in range(26)]
    found = sampled(range(26), 2, 0, windowed=windowed)
    assert {windowed[one] for one in found} == {True, False}
    assert {0, 25} <= set(found)


def test_layers_that_read_anothers_cache_are_examined_beside_that_one() -> None:
    windowed = [True, True, False, True, False]
    assert sampled(range(3), 2, 0, windowed=windowed, sharing=(3, 4)) == (0, 1, 2, 3, 4)


def test_a_depth_that_no_context_reaches_is_said() -> None:
    found = level("full", cells=4096, ubatch=512, depths=(0, 2048, 65536))
    assert found.left_out == ("depth 65,536",)
    assert 2048 in dict(found.ascends)


def test_a_window_is_a_corner_of_its_own() -> None:
    tensor = SimpleNamespace(type="f16", ne=(64, 4, 2, 1))
    inputs = cast("Inputs", SimpleNamespace(q=tensor, k=tensor, v=tensor, sinks=None))
    node = cast("Node", SimpleNamespace(backend="CPU"))
    masks = [
        corner_of(node, inputs, Parameters(1.0, 0.0, 0.0), np.zeros((1, 9)), windowed=windowed).mask
        for windowed in (False, True)
    ]
    assert masks == ["causal", "window"]
