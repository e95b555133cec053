"""Child side: one ascent through a context, with a ladder of batch shapes at each depth.

At a depth the same next tokens are decoded in batches of every size, and taken back again
(``llama_memory_seq_rm`` of the tail; a memory that cannot is filled anew where that is shallow), so
that all see the very same cache. The oracle watches; the
logits of each size are compared with those of the largest, and with those of f16 in that size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pytest_kvquant.engine.child.watch import Watched
from pytest_kvquant.engine.messages.kernels import Rung
from pytest_kvquant.numerics.arrays import F32, F64, I32

FUSED = (1, 8, 64)
"""Batch sizes that are decoded once more without the oracle."""


REFILLED = 256
"""Tokens up to which a memory that gives up no tail (a recurrent state) is filled anew instead."""


class Ascent:
    """Climbs one context.

    Args:
        tokens: those of the text, at least as many as the context holds.
        store: where logits of f16 are kept.
        is_reference: whether this is f16, which leaves its logits there.
        alive: called between batches, so that the parent sees that work goes on.
    """

    def __init__(
        self,
        context: Watched,
        tokens: I32,
        store: Path | None,
        *,
        is_reference: bool,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._context, self._tokens, self._store = context, tokens, store
        self._is_reference, self._alive = is_reference, alive
        self.reached = 0
        self.takes_back = True
        """Whether the memory can give up the tail of a sequence: a recurrent state cannot."""

    def extend_to(self, ascends: Sequence[tuple[int, Sequence[int]]]) -> Iterator[Rung]:
        """Rungs of every depth, the shallow ones first; no depth is filled twice."""
        for depth, sizes in sorted(ascends):
            self._fill(depth)
            yield from self._rungs(depth, [size for size in sizes if self._fits(depth, size)])

    def _fits(self, depth: int, size: int) -> bool:
        return depth + size <= len(self._tokens) and size <= self._context.ubatch

    def _fill(self, depth: int) -> None:
        self._context.watch(False)
        while self.reached < depth:
            count = min(depth - self.reached, self._context.batch)
            self._decode(self.reached, count, wanted=False)
            self.reached += count
            self._alive()

    def _rungs(self, depth: int, sizes: Sequence[int]) -> Iterator[Rung]:
        largest: F32 | None = None
        for size in sorted(sizes, reverse=True):
            if self.reached + size > len(self._tokens):
                continue
            self._context.watch(True)
            rows = self._decode(self.reached, size)
            start = self.reached
            back = self._take_back(start, size)
            fused = self._fused(start, size, rows) if size in FUSED and back else None
            own = None
            if largest is None:
                largest = rows
            elif back:
                own = kl(largest[:size], rows)
            reference = self._against_reference(depth, size, rows)
            yield Rung(depth=depth, tokens=size, own=own, reference=reference, fused=fused)
            self._alive()

    def _fused(self, start: int, size: int, rows: F32) -> float:
        self._context.watch(False)
        again = self._decode(start, size)
        self._take_back(start, size)
        return 0.0 if np.array_equal(again, rows) else max(kl(again, rows), 1e-30)

    def _against_reference(self, depth: int, size: int, rows: F32) -> float | None:
        if self._store is None:
            return None
        path = self._store / f"ladder-{depth}-{size}.npy"
        if self._is_reference:
            self._store.mkdir(parents=True, exist_ok=True)
            np.save(path, rows)
            return None
        return kl(np.load(path), rows) if path.exists() else None

    def _decode(self, start: int, count: int, *, wanted: bool = True) -> F32:
        span = np.arange(start, start + count, dtype=np.int32)
        flags = np.full(count, wanted, np.bool_)
        tokens = self._tokens[start : start + count]
        return self._context.decode(tokens, span, np.zeros_like(span), flags).copy()

    def _take_back(self, start: int, count: int) -> bool:
        """Whether the context is again as it was before its last tokens."""
        context = self._context
        if self.takes_back and context.llama.llama_memory_seq_rm(context.memory, 0, start, -1):
            context.mirrors.tell("remove", 0, start, -1)
            self.reached = start
            return True
        self.takes_back = False
        if start > REFILLED:
            self.reached = start + count
            return False
        context.clear()
        self.reached = 0
        self._fill(start)
        return True


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
