"""Child side: one sweep through a context, with a ladder of batch shapes at each depth.

At a depth the same next tokens are decoded in batches of every size, and taken back again
(``llama_memory_seq_rm`` of the tail), so that all see the very same cache. The oracle watches; the
logits of each size are compared with those of the largest, and with those of f16 in that size.

No depth is filled twice. A memory that keeps a row per token is filled once, to its end, and
visited from there downwards. Windows forget what lies behind them, so that such a memory is
filled from depth to depth, and what the largest batch wrote stays as part of the way. A memory
that gives up no tail (a recurrent state) is filled anew for every batch where that is shallow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.child.watch import Watched
from pytest_kvquant.engine.messages.kernels import Rung
from pytest_kvquant.numerics.arrays import F32, F64, I32

FUSED = (1, 8, 64)
"""Batch sizes that are decoded once more without the oracle."""

REFILLED = 256
"""Tokens up to which a memory that gives up no tail (a recurrent state) is filled anew instead."""

SHOWN = 64
"""Tokens of a batch whose logits are compared: the first ones, which smaller batches have too."""

SHOWN_BEHIND = 16
"""Further ones of a larger batch, spread over the rest of it; the last is one of them."""


class Played(NamedTuple):
    """A batch that was decoded."""

    start: int
    """The position of its first token."""
    size: int
    rows: F32
    fused: float | None


class Ascent:
    """Sweeps through one context.

    Args:
        tokens: those of the text, at least as many as the context holds.
        store: where logits of f16 are kept.
        is_reference: whether this is f16, which leaves its logits there.
        keeps_all: whether the memory is a row per token, and no window forgets any.
        alive: called between batches, so that the parent sees that work goes on.
    """

    def __init__(
        self,
        context: Watched,
        tokens: I32,
        store: Path | None,
        *,
        is_reference: bool,
        keeps_all: bool = False,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._context, self._tokens, self._store = context, tokens, store
        self._is_reference, self._keeps_all, self._alive = is_reference, keeps_all, alive
        self.reached = 0
        self.takes_back = True
        """Whether the memory can give up the tail of a sequence: a recurrent state cannot."""

    def extend_to(self, ascends: Sequence[tuple[int, Sequence[int]]]) -> Iterator[Rung]:
        """Rungs of every depth, the shallow ones first, and the largest batch of each first."""
        stops = [
            (depth, [size for size in sorted(sizes) if self._fits(depth, size)])
            for depth, sizes in sorted(ascends)
        ]
        visit = self._downwards if self._keeps_all else self._upwards
        for depth, played in sorted(visit(stops).items()):
            yield from self._rungs(depth, sorted(played, key=lambda one: -one.size))

    def _fits(self, depth: int, size: int) -> bool:
        return depth + size <= len(self._tokens) and size <= self._context.ubatch

    def _upwards(self, stops: Sequence[tuple[int, Sequence[int]]]) -> dict[int, list[Played]]:
        return {depth: self._play_all(depth, sizes) for depth, sizes in stops}

    def _downwards(self, stops: Sequence[tuple[int, Sequence[int]]]) -> dict[int, list[Played]]:
        """The largest batch of an empty cache is the first part of the way to its end."""
        (first, sizes), *_ = stops
        begun = self._play_all(first, sizes[-1:]) if first == 0 else []
        self._reach(stops[-1][0])
        found = {}
        for depth, sizes in reversed(stops):
            left = sizes[: -len(begun)] if depth == first and begun else sizes
            found[depth] = self._play_all(depth, left)
        found[first] += begun
        return found

    def _play_all(self, depth: int, sizes: Sequence[int]) -> list[Played]:
        """Batches of rising size over the same cache; the last one stays in it."""
        self._reach(depth)
        start, found = self.reached, []
        for size in sizes:
            if self.reached > start and not self._take_back(start):
                start = self.reached
            if start + size <= len(self._tokens):
                found.append(self._play(start, size))
        return found

    def _play(self, start: int, size: int) -> Played:
        self._context.watch(True)
        rows, fused = self._decode(start, size), None
        if size in FUSED and self._take_back(start):
            self._context.watch(False)
            again = self._decode(start, size)
            fused = 0.0 if np.array_equal(again, rows) else max(kl(again, rows), 1e-30)
        self._alive()
        return Played(start, size, rows, fused)

    def _reach(self, depth: int) -> None:
        """So many tokens in the cache: it is filled, or gives up its tail if it can."""
        if self.reached > depth:
            self._take_back(depth)
        self._context.watch(False)
        while self.reached < depth:
            count = min(depth - self.reached, self._context.batch)
            self._decode(self.reached, count, wanted=False)
            self._alive()

    def _rungs(self, depth: int, played: Sequence[Played]) -> Iterator[Rung]:
        usual: F32 | None = None
        for number, one in enumerate(played):
            largest, own, cost = played[0], None, None
            reference = self._of_reference(depth, one)
            if not number:
                usual = reference
            elif one.start == largest.start:
                common = min(one.size, SHOWN)
                own = kl(largest.rows[:common], one.rows[:common])
                cost = _against(usual, largest.rows[:common])
            against = _against(reference, one.rows)
            yield Rung(
                depth=depth, tokens=one.size, own=own, reference=against, cost=cost,
                fused=one.fused,
            )  # fmt: skip

    def _of_reference(self, depth: int, one: Played) -> F32 | None:
        """Logits of f16 for the same batch; f16 itself leaves them for the others."""
        if self._store is None:
            return None
        path = self._store / f"ladder-{depth}-{one.size}.npy"
        if self._is_reference:
            self._store.mkdir(parents=True, exist_ok=True)
            np.save(path, one.rows)
            return None
        return np.asarray(np.load(path), np.float32) if path.exists() else None

    def _decode(self, start: int, count: int, *, wanted: bool = True) -> F32:
        span = np.arange(start, start + count, dtype=np.int32)
        tokens = self._tokens[start : start + count]
        flags = shown(count) if wanted else np.zeros(count, np.bool_)
        rows = self._context.decode(tokens, span, np.zeros_like(span), flags).copy()
        self.reached = start + count
        return rows

    def _take_back(self, start: int) -> bool:
        """Whether the context is again as it was when it held ``start`` tokens."""
        context = self._context
        if self.takes_back and context.llama.llama_memory_seq_rm(context.memory, 0, start, -1):
            context.mirrors.tell("remove", 0, start, -1)
            self.reached = start
            return True
        self.takes_back = False
        if start > REFILLED:
            return False
        context.clear()
        self.reached = 0
        self._reach(start)
        return True


def shown(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which tokens of a batch give logits.

    >>> shown(3).tolist(), int(shown(512).sum()), bool(shown(512)[-1])
    ([True, True, True], 80, True)
    """
    flags = np.arange(count) < SHOWN
    if count > SHOWN:
        behind = np.linspace(SHOWN, count - 1, min(SHOWN_BEHIND, count - SHOWN))
        flags[behind.astype(np.int64)] = True
    return flags


def _against(reference: F32 | None, rows: F32) -> float | None:
    """Mean KL of these rows, nats; ``None`` where there is nothing to compare them with."""
    return None if reference is None else kl(reference[: len(rows)], rows)


def kl(reference: F32, rows: F32) -> float:
    """Mean KL(reference ‖ rows), nats; infinite where a row is not finite."""
    if not (np.isfinite(reference).all() and np.isfinite(rows).all()):
        return 1e30
    shifted, raised, total = _raised(reference)
    other, _, its_total = _raised(rows)
    apart = shifted - other  # in f32, both near 0; what is the same cancels
    mean = np.einsum("rv,rv->r", raised, apart, dtype=np.float64) / total
    return max(0.0, float((mean - np.log(total) + np.log(its_total)).mean()))


def _raised(rows: F32) -> tuple[F32, F32, F64]:
    """Logits below their largest, those raised, and the sums; in f32 but for the sums."""
    shifted = rows - rows.max(axis=1, keepdims=True)
    raised = np.exp(shifted)
    return shifted, raised, raised.sum(axis=1, dtype=np.float64)
