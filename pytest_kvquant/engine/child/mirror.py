"""Child side: which token lies in which cell, kept beside the library and not asked of it.

Every token that a context is given and every operation on its sequences is told to the mirror too;
the graph says only which cell a row is written to. From that follows what each query may see: the
mask is recomputed, not taken from the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import I32, I64

Bools = npt.NDArray[np.bool_]

Saved = Mapping[int, I64]
"""Positions by sequence."""

_NOWHERE = np.zeros(0, np.int64)


class Placed(NamedTuple):
    """Tokens of one graph, in the order of its rows."""

    positions: I64
    sequences: I64


class Mirror:
    """Cells of one layer's cache.

    Args:
        unified: whether all sequences share one stream of cells.
        equal: whether a batch is cut into pieces with as many tokens of every sequence, one
            sequence after the other, as models with a recurrent state need it.
    """

    def __init__(self, *, unified: bool, equal: bool = False) -> None:
        self.unified, self.equal = unified, equal
        self.size = 0
        """Cells of a stream; 0 before the first write."""
        self.where = np.zeros(0, np.int64)
        """Position of the token in each cell, over all streams."""
        self.owners = np.zeros(0, np.uint64)
        """A bit for each sequence that the cell belongs to."""
        self.moved = np.zeros(0, np.int64)
        """How far each cell has been shifted since the last graph that turned the keys."""
        self.restored: dict[int, I64] = {}
        """Positions of sequences whose cells are the library's choice: those of a saved state."""
        self._waiting: dict[int, list[tuple[int, int]]] = {}

    def given(self, positions: I32, sequences: I32) -> None:
        """A batch is about to be decoded."""
        self._waiting = {}
        for position, sequence in zip(positions.tolist(), sequences.tolist(), strict=True):
            stream = 0 if self.unified else sequence
            self._waiting.setdefault(stream, []).append((position, sequence))

    def written(self, cells: I64, size: int, streams: int) -> Placed:
        """Rows go to these cells; what they are, in order.

        Args:
            size: cells per stream.

        Raises:
            LookupError: more rows are written to a stream than it was given tokens.
        """
        if not self.size:
            self.size = size
            self.where = np.full(size * streams, -1, np.int64)
            self.owners = np.zeros(size * streams, np.uint64)
            self.moved = np.zeros(size * streams, np.int64)
        if self.equal and self.unified and len(queue := self._waiting.get(0, [])) > len(cells):
            self._waiting[0] = _in_equal_shares(queue, len(cells))
        placed = []
        for cell in cells.tolist():
            queue = self._waiting.get(0 if self.unified else cell // size, [])
            if not queue:
                raise LookupError(f"a row is written to cell {cell}, for which no token waits")
            placed.append(queue.pop(0))
        found = np.array(placed, np.int64).reshape(-1, 2)
        self.where[cells] = found[:, 0]
        self.owners[cells] = np.left_shift(np.uint64(1), found[:, 1].astype(np.uint64))
        self.moved[cells] = 0
        return Placed(found[:, 0], found[:, 1])

    def seen(self, positions: I64, sequences: I64, first: int, cells: int, windows: I64) -> Bools:
        """Which of ``cells`` cells from ``first`` on queries see; shape ``(queries, cells)``.

        Args:
            positions, sequences: of each query.
            windows: tokens that each looks back on, itself included, or all alike; 0: all.
        """
        where, owners = (one[first : first + cells] for one in (self.where, self.owners))
        bits = np.left_shift(np.uint64(1), sequences.astype(np.uint64))
        distance = positions[:, None] - where
        seen: Bools = ((owners & bits[:, None]) > 0) & (distance >= 0)
        if windows.any():
            seen &= distance < windows[:, None]
        return seen

    def free(self, first: int, cells: int) -> Bools:
        """Which of ``cells`` cells from ``first`` on may hold rows of a restored state."""
        return np.asarray(self.owners[first : first + cells] == 0)

    def seen_restored(self, position: int, sequence: int, window: int) -> int:
        """How many rows of a restored state a query sees; in which cells is not known."""
        where = self.restored.get(sequence, _NOWHERE)
        distance = position - where
        return int(((distance >= 0) & ((distance < window) if window else True)).sum())

    def positions(self, sequence: int) -> I64:
        """Positions of a sequence that are in the cache, in order."""
        placed = self.where[self._of(sequence)]
        return np.sort(np.concatenate([placed, self.restored.get(sequence, _NOWHERE)]))

    def saved(self, sequence: int) -> Saved:
        """What a state holds of one sequence, or of all where it is negative."""
        every = range(64) if sequence < 0 else (sequence,)
        found = {one: self.positions(one) for one in every}
        return {one: where for one, where in found.items() if where.size}

    def restore(self, state: Saved, sequence: int) -> None:
        """A saved state comes back: all of it, or its only sequence under this number."""
        if sequence < 0:
            self.clear()
            self.restored = dict(state)
        else:
            self.remove(sequence, -1, -1)
            self.restored[sequence] = np.concatenate([_NOWHERE, *state.values()])

    def clear(self) -> None:
        """Forget everything."""
        self.owners[:] = 0
        self.moved[:] = 0
        self.restored = {}

    def remove(self, sequence: int, first: int, last: int) -> None:
        """``llama_memory_seq_rm``; a negative bound is open."""
        inside = self._within(first, last)
        if sequence < 0:
            self.owners[inside] = 0
        else:
            self.owners[inside] &= ~_bit(sequence)
        for one, where in self.restored.items():
            if sequence in (one, -1):
                self.restored[one] = where[~_between(where, first, last)]

    def keep(self, sequence: int) -> None:
        """``llama_memory_seq_keep``."""
        self.owners &= _bit(sequence)
        self.restored = {one: at for one, at in self.restored.items() if one == sequence}

    def copy(self, source: int, target: int, first: int, last: int) -> None:
        """``llama_memory_seq_cp``: within one stream a cell gets another owner; across streams
        all of a stream is copied."""
        if (where := self.restored.get(source)) is not None:
            known = self.restored.get(target, _NOWHERE)
            some = where[_between(where, first, last)] if self.unified else where
            self.restored[target] = np.concatenate([known, some]) if self.unified else some
        if self.unified:
            self.owners[self._of(source) & self._within(first, last)] |= _bit(target)
            return
        ours, theirs = (slice(one * self.size, (one + 1) * self.size) for one in (source, target))
        self.where[theirs], self.moved[theirs] = self.where[ours], self.moved[ours]
        self.owners[theirs] = np.where(self.owners[ours] > 0, _bit(target), np.uint64(0))

    def shift(self, sequence: int, first: int, last: int, delta: int) -> None:
        """``llama_memory_seq_add``; what moves before 0 is gone."""
        hit = self._of(sequence) & self._within(first, last)
        self.where[hit] += delta
        self.moved[hit] += delta
        self.owners[hit & (self.where < 0)] = 0
        if (where := self.restored.get(sequence)) is not None:
            where = np.where(_between(where, first, last), where + delta, where)
            self.restored[sequence] = where[where >= 0]

    def divide(self, sequence: int, first: int, last: int, by: int) -> None:
        """``llama_memory_seq_div``."""
        hit = self._of(sequence) & self._within(first, last)
        before = self.where[hit]
        self.where[hit] = before // by
        self.moved[hit] += self.where[hit] - before
        if (where := self.restored.get(sequence)) is not None:
            self.restored[sequence] = np.where(_between(where, first, last), where // by, where)

    def turned(self) -> None:
        """The keys have been turned to where their cells are now."""
        self.moved[:] = 0

    def _of(self, sequence: int) -> Bools:
        return (self.owners & _bit(sequence)) > 0

    def _within(self, first: int, last: int) -> Bools:
        return _between(self.where, first, last)


def _between(where: I64, first: int, last: int) -> Bools:
    """Positions from ``first`` to before ``last``; a negative bound is open."""
    inside = where >= max(first, 0)
    return inside & (where < last) if last >= 0 else inside


def _in_equal_shares(queue: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Waiting tokens, those first that the next piece of ``count`` takes."""
    by_sequence: dict[int, list[tuple[int, int]]] = {}
    for token in queue:
        by_sequence.setdefault(token[1], []).append(token)
    share = count // len(by_sequence)
    first = [token for tokens in by_sequence.values() for token in tokens[:share]]
    return first + [token for token in queue if token not in set(first)]


def _bit(sequence: int) -> np.uint64:
    return np.uint64(1 << sequence)


class Mirrors:
    """A mirror per watched layer: layers with a window have cells of their own."""

    def __init__(self, layers: Iterable[int], *, unified: bool, equal: bool = False) -> None:
        self.by_layer = {layer: Mirror(unified=unified, equal=equal) for layer in layers}

    def tell(self, operation: str, *arguments: object) -> None:
        """Call the same method of every layer's mirror."""
        for mirror in self.by_layer.values():
            getattr(mirror, operation)(*arguments)

    def saved(self, sequence: int) -> dict[int, Saved]:
        """What each layer has of a state that is saved now."""
        return {layer: mirror.saved(sequence) for layer, mirror in self.by_layer.items()}

    def restore(self, state: Mapping[int, Saved], sequence: int) -> None:
        """The same comes back."""
        for layer, mirror in self.by_layer.items():
            mirror.restore(state[layer], sequence)
