"""Processors with arithmetic in f16 add up queries times f16 keys in it: that is no fault."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.engine.child.attention_inputs import Operands
from pytest_kvquant.engine.child.attention_noise import Types
from pytest_kvquant.engine.child.judge_attention import against_arithmetic
from pytest_kvquant.numerics.attention import Scores


def dot_in_half(k: np.ndarray, q: np.ndarray, lanes: int) -> float:
    """``ggml_vec_dot_f16`` with four registers of so many f16 lanes."""
    registers = min(4, len(q) // lanes)
    sums, step = np.zeros((registers, lanes), np.float16), registers * lanes
    for start in range(0, len(q), step):
        one, other = (
            row[start : start + step].reshape(registers, lanes).astype(np.float64) for row in (k, q)
        )
        sums = (sums + one * other).astype(np.float16)
    total = sums[0]
    for row in sums[1:]:
        total = total + row
    while len(total) > 1:
        total = total[: len(total) // 2] + total[len(total) // 2 :]
    return float(total[0])


def example(seed: int, lanes: int, *, change: float = 1.0, cells: int = 50) -> Operands:
    size, rng = 128, np.random.default_rng(seed)
    q = (2 * rng.normal(size=(3, size))).astype(np.float16)
    k, v = rng.normal(size=(cells, size)).astype(np.float16), rng.normal(size=(cells, size))
    scale = size**-0.5
    scores = np.array([[dot_in_half(key, row, lanes) for key in k] for row in q]) * scale * change
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    out = weights / weights.sum(axis=1, keepdims=True) @ v
    return Operands(
        q.astype(np.float64), k.astype(np.float64), v, np.zeros((3, cells)),
        out.astype(np.float32).astype(np.float64), Scores(scale),
    )  # fmt: skip


def ratio(head: Operands, k_type: str = "f16", *, adds_in_half: bool) -> float:
    return against_arithmetic(head, Types(k_type, "q4_0", adds_in_half), on_cpu=True)[0]


@pytest.mark.parametrize("lanes", [8, 32])
@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_processor_is_right(seed: int, lanes: int) -> None:
    head = example(seed, lanes)
    assert ratio(head, adds_in_half=True) <= 1
    assert ratio(head, adds_in_half=False) > 1


def test_a_query_that_sees_few_cells_shows_each_rounding() -> None:
    ratios = [ratio(example(seed, 32, cells=2), adds_in_half=True) for seed in range(300)]
    assert max(ratios) <= 1


@pytest.mark.parametrize("change", [0.98, 1.02])
def test_two_percent_of_the_scores_are_wrong(change: float) -> None:
    assert ratio(example(1, 32, change=change), adds_in_half=True) > 1


def test_products_with_other_keys_are_added_in_f32() -> None:
    assert ratio(example(1, 32), "f32", adds_in_half=True) > 1
