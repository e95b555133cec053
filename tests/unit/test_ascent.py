"""What the ascent says of logits, and how it goes back where a memory gives up no tail."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from pytest_kvquant.engine.child.ascent import REFILLED, Ascent, kl


@pytest.mark.parametrize("apart", [0.3, 0.03, 0.003])
def test_it_is_the_divergence_of_the_two_softmaxes(apart: float) -> None:
    rng = np.random.default_rng(0)
    p = rng.normal(size=(5, 700)).astype(np.float32) * 4
    q = p + apart * rng.normal(size=p.shape).astype(np.float32)
    both = (p.astype(float), q.astype(float))
    lp, lq = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in both)
    meant = (np.exp(lp) * (lp - lq)).sum(axis=1).mean()
    assert kl(p, q) == pytest.approx(meant, rel=0.01)


def test_equal_logits_are_nothing_apart_and_a_nan_is_beyond_all_limits() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    assert kl(rows, rows.copy()) == 0
    spoilt = rows.copy()
    spoilt[1, 2] = np.nan
    assert kl(rows, spoilt) > 1e6
    assert kl(spoilt, rows) > 1e6


class Recurrent:
    """A context whose memory cannot forget a tail; its logits tell what it holds."""

    ubatch = batch = 64

    def __init__(self) -> None:
        self.held: list[int] = []
        self.llama, self.memory, self.mirrors = self, None, self

    def llama_memory_seq_rm(self, *_: Any) -> bool:
        return False

    def tell(self, *_: Any) -> None:
        raise AssertionError("nothing was removed")

    def watch(self, on: bool) -> None:
        del on

    def clear(self) -> None:
        self.held = []

    def decode(self, tokens: Any, positions: Any, sequences: Any, flags: Any) -> Any:
        del sequences
        assert positions[0] == len(self.held)
        self.held += tokens.tolist()
        rows = np.zeros((int(np.sum(flags)), 4), np.float32)
        rows[:, 0] = len(self.held)
        return rows


def climb(depth: int) -> list[float | None]:
    context = Recurrent()
    tokens = np.arange(depth + 64, dtype=np.int32)
    ascent = Ascent(cast(Any, context), tokens, None, is_reference=False)
    return [rung.own for rung in ascent.extend_to([(depth, (1, 2, 8))])]


def test_a_memory_that_gives_up_no_tail_is_filled_anew() -> None:
    assert [own is not None for own in climb(20)] == [False, True, True]


def test_but_not_at_depth() -> None:
    assert climb(REFILLED + 1) == [None, None, None]
