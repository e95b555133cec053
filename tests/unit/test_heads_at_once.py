"""Heads that are computed at once are judged as each is by itself."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.engine.child.attention_inputs import Heads, Operands
from pytest_kvquant.engine.child.attention_noise import Types
from pytest_kvquant.engine.child.judge_attention import _nearest, against_arithmetic
from pytest_kvquant.numerics import attention
from pytest_kvquant.numerics.attention import Scores

COUNT, ROWS, CELLS, SIZE = 3, 5, 40, 64


def example(seed: int, *, sinks: bool = False, bias: bool = False) -> Heads:
    """Healthy heads, whose outputs were rounded to f32; of the last one a row is off by 2 %."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(COUNT, n, SIZE)) for n in (ROWS, CELLS, CELLS))
    mask = np.where(np.arange(CELLS) <= np.arange(ROWS)[:, None] + 20, 0.0, -np.inf)
    slope = rng.uniform(0.1, 1, (COUNT, 1, 1)) if bias else np.ones((COUNT, 1, 1))
    how = Scores(SIZE**-0.5, 0.0, slope, rng.normal(size=(COUNT, 1, 1)) if sinks else None)
    out = attention.attend(q, k, v, mask, how).out.astype(np.float32).astype(np.float64)
    out[-1, 2] *= 1.02
    return Heads(0, [0, 2, 5], np.arange(ROWS), Operands(q, k, v, mask, out, how))


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("k_type", ["f16", "bf16", "q8_0", "q5_1", "q4_0", "turbo3"])
@pytest.mark.parametrize("sinks", [True, False])
def test_all_at_once_as_one_by_one(k_type: str, on_cpu: bool, sinks: bool) -> None:
    heads = example(1, sinks=sinks, bias=not sinks)
    for adds_in_half in (False, True):
        types = Types(k_type, "q8_0", adds_in_half)
        together, found, _ = _nearest(heads.given, types, on_cpu=on_cpu)
        for at, head in enumerate(heads.each):
            alone, by_itself, _ = _nearest(head.given, types, on_cpu=on_cpu)
            assert together[at] == pytest.approx(float(alone), rel=1e-6)
            for one, other in zip(found, by_itself, strict=True):
                assert one[at] == pytest.approx(float(other), rel=1e-5, abs=1e-12)
        assert together.argmax() == COUNT - 1


def test_a_head_that_is_not_finite_is_infinitely_wrong_and_the_others_are_not() -> None:
    heads = example(2)
    heads.given.out[1, 3, 7] = np.nan
    ratios, found, _ = _nearest(heads.given, Types("f16", "q8_0"), on_cpu=True)
    assert ratios[1] == np.inf
    assert found.row[1] == 3
    assert np.isfinite(ratios[[0, 2]]).all()
    head = list(heads.each)[1]
    assert against_arithmetic(head.given, Types("f16", "q8_0"), on_cpu=True)[0] == np.inf
    assert head.head == 2
