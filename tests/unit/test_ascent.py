"""What the ascent says of logits, and how it goes back where a memory gives up no tail."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from pytest_kvquant.engine.child.ascent import REFILLED, SHOWN, Ascent, kl, shown


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


class Keeping(Recurrent):
    """A context that forgets a tail when it is told to, and counts what it decodes."""

    ubatch = batch = 512

    def __init__(self) -> None:
        super().__init__()
        self.decoded: list[tuple[int, int]] = []
        self.watched = False

    def llama_memory_seq_rm(self, _memory: Any, _sequence: int, first: int, _last: int) -> bool:
        del self.held[first:]
        return True

    def tell(self, *_: Any) -> None:
        pass

    def watch(self, on: bool) -> None:
        self.watched = on

    def decode(self, tokens: Any, positions: Any, sequences: Any, flags: Any) -> Any:
        if not self.watched and not np.any(flags):
            self.decoded.append((int(positions[0]), len(tokens)))
        return super().decode(tokens, positions, sequences, flags)


STOPS = [(0, (1, 512)), (250, (1, 8, 64)), (447, (1, 33))]


def sweep(*, keeps_all: bool) -> tuple[Keeping, list[tuple[int, int]]]:
    context = Keeping()
    ascent = Ascent(
        cast(Any, context), np.arange(512, dtype=np.int32), None, is_reference=False,
        keeps_all=keeps_all,
    )  # fmt: skip
    return context, [(rung.depth, rung.tokens) for rung in ascent.extend_to(STOPS)]


@pytest.mark.parametrize("keeps_all", [True, False])
def test_every_size_is_played_at_every_depth_over_the_cells_before_it(keeps_all: bool) -> None:
    _, rungs = sweep(keeps_all=keeps_all)
    assert rungs == [(0, 512), (0, 1), (250, 64), (250, 8), (250, 1), (447, 33), (447, 1)]


def test_a_memory_that_keeps_all_is_filled_by_its_largest_batch_alone() -> None:
    context, _ = sweep(keeps_all=True)
    assert not context.decoded


def test_what_the_largest_batch_wrote_is_part_of_the_way_to_the_next_depth() -> None:
    context, _ = sweep(keeps_all=False)
    assert context.decoded == [(314, 133)]


def test_logits_of_the_first_tokens_and_of_some_behind_them_are_compared() -> None:
    flags = shown(512)
    assert flags[:SHOWN].all()
    assert flags[-1]
    assert SHOWN < flags.sum() < 2 * SHOWN
    assert shown(SHOWN).all()
