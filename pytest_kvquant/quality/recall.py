"""Recall at distance: a passage, filler, and the passage's beginning again.

A sequence is text as it stands, up to its last few hundred tokens: these repeat passages of it, one
for each distance. The rest of a repeat, after its first :data:`CUE` tokens, costs a model that
recalls far less than it did the first time. That needs no prompt and no instructed model, and one
prefill serves all distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.messages.cell import Span, Step
from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.numerics.arrays import F64, I32
from pytest_kvquant.numerics.kernels import compare_rows

NEAREST = 256
"""Tokens: the shortest distance; the others double."""
CUE = 16
"""Tokens of a repeat that are not scored: they say what is being repeated."""
SCORED = 32
PASSAGE = CUE + SCORED
SEQUENCES = 8
"""Passages per distance, one in each sequence."""
SHORT = 1024
"""Tokens of a sequence up to which twice as many are read: that costs little there, and over the
pairs of a matrix eight passages left healthy 4-bit pairs undecided."""
SHORTEST = NEAREST + PASSAGE + 1
"""Tokens of a sequence that has room for the nearest distance."""

Steps: TypeAlias = list[Step]


class RecallPlan(NamedTuple):
    """Sequences with passages and their repeats, the same places in each."""

    distances: tuple[int, ...]
    """Tokens from a passage's token to the same token of its repeat, ascending."""
    sequences: I32
    """Shape ``(sequences, tokens)``."""

    @property
    def repeats(self) -> tuple[int, ...]:
        """Where each repeat starts."""
        end, count = self.sequences.shape[1], len(self.distances)
        return tuple(end - PASSAGE * (count - number) for number in range(count))

    @property
    def passages(self) -> tuple[int, ...]:
        """Where each passage starts."""
        pairs = zip(self.repeats, self.distances, strict=True)
        return tuple(again - distance for again, distance in pairs)

    def halves(self) -> tuple[RecallPlan, RecallPlan] | None:
        """Every other sequence, and the rest; ``None`` where a half is too few to decide by."""
        if len(self.sequences) < 2 * SEQUENCES:
            return None
        even, odd = self.sequences[::2], self.sequences[1::2]
        return self._replace(sequences=even), self._replace(sequences=odd)


class Recalled(NamedTuple):
    """What reading all passages twice cost, shape ``(sequences, distances)`` each."""

    first: F64
    """Mean NLL of a passage's scored tokens where they are read first, nats."""
    again: F64
    """The same in the repeat."""
    hits: F64
    """Share of the repeat's scored tokens that were the likeliest, 0..1."""

    @property
    def gain(self) -> F64:
        """What was gained from having read them, nats a token."""
        return self.first - self.again

    def every_other(self) -> Recalled:
        """Of the sequences of the first of a plan's halves."""
        return Recalled(*(values[::2] for values in self))

    def among(self, others: Recalled) -> Recalled:
        """These of the first half and those of the second, in the order of the whole plan."""
        return Recalled(*map(_by_turns, self, others))


def _by_turns(even: F64, odd: F64) -> F64:
    whole = np.empty((len(even) + len(odd), even.shape[1]))
    whole[::2], whole[1::2] = even, odd
    return whole


def sequences_of(length: int) -> int:
    """How many of ``length`` tokens are read, where the text has them: twice as many short ones."""
    return SEQUENCES if length > SHORT else 2 * SEQUENCES


def distances(length: int) -> tuple[int, ...]:
    """256, 512, … and the farthest that a sequence of ``length`` tokens has room for.

    >>> distances(2048)
    (256, 512, 1024, 1999)
    """
    farthest = length - PASSAGE - 1
    found = []
    distance = NEAREST
    while distance <= farthest:
        found.append(distance)
        distance *= 2
    if found and farthest >= max(1.25 * found[-1], found[-1] + 2 * PASSAGE):
        found.append(farthest)
    return tuple(found)


def plan(tokens: I32, length: int) -> RecallPlan | None:
    """Cut sequences of ``length`` tokens, evenly spaced, and write the repeats into them.

    Args:
        tokens: text, shape ``(n,)``.

    Returns:
        ``None`` where the text or the length has no room for two sequences.
    """
    available = len(tokens) // length if length >= SHORTEST else 0
    if available < 2:
        return None
    count = min(sequences_of(length), available)
    starts = [number * available // count * length for number in range(count)]
    sequences = np.stack([tokens[start : start + length] for start in starts]).astype(np.int32)
    found = RecallPlan(distances(length), sequences)
    for passage, repeat in zip(found.passages, found.repeats, strict=True):
        sequences[:, repeat : repeat + PASSAGE] = sequences[:, passage : passage + PASSAGE]
    return found


def shape(plan: RecallPlan, of_cell: BatchShape) -> BatchShape:
    """The context that one sequence takes."""
    return msgspec.structs.replace(of_cell, ctx=plan.sequences.shape[1], sequences=1)


def steps(plan: RecallPlan, batch: int) -> Steps:
    """The script: every sequence in batches of at most ``batch``, logits where NLL is wanted."""
    wanted = _wanted(plan)
    found: Steps = []
    for sequence in plan.sequences.tolist():
        found.append(["clear"])
        for start in range(0, len(sequence), batch):
            stop = min(start + batch, len(sequence))
            found.append(["decode", _spans(sequence, start, stop, wanted)])
    return found


def measure(worker: Worker, plan: RecallPlan, of_cell: BatchShape, vocabulary: int) -> Recalled:
    """Read all sequences in the opened cell, whose context is made again in their length.

    Raises:
        CellError: the worker dies, or makes no such context.
    """
    own = shape(plan, of_cell)
    worker.reopen(own)
    wanted = np.flatnonzero(_wanted(plan)).astype(np.int32)
    targets = plan.sequences[:, wanted + 1].ravel()
    nll, hit, at = np.empty(len(targets)), np.empty(len(targets)), 0
    batch = min(own.batch, own.ctx)
    for block in worker.run_script(steps(plan, batch), vocabulary):
        count = len(block.logits)
        rows = slice(at, at + count)
        seen = compare_rows(block.logits, block.logits, targets[rows])
        nll[rows], hit[rows] = seen.nll_cell, seen.top_cell == targets[rows]
        at += count
    return _by_place(plan, wanted, nll, hit)


def _by_place(plan: RecallPlan, wanted: I32, nll: F64, hit: F64) -> Recalled:
    count = len(plan.sequences)
    nll, hit = nll.reshape(count, -1), hit.reshape(count, -1)

    def mean(values: F64, starts: tuple[int, ...]) -> F64:
        means = []
        for start in starts:
            first = int(np.searchsorted(wanted, start + CUE - 1))
            means.append(values[:, first : first + SCORED].mean(axis=1))
        return np.stack(means, axis=1)

    return Recalled(mean(nll, plan.passages), mean(nll, plan.repeats), mean(hit, plan.repeats))


def _wanted(plan: RecallPlan) -> npt.NDArray[np.bool_]:
    """Which tokens' logits predict a scored token, shape ``(tokens,)``."""
    flags = np.zeros(plan.sequences.shape[1], np.bool_)
    for start in (*plan.passages, *plan.repeats):
        flags[start + CUE - 1 : start + PASSAGE - 1] = True
    return flags


def _spans(sequence: list[int], start: int, stop: int, wanted: npt.NDArray[np.bool_]) -> list[Span]:
    """Tokens ``start`` … as spans of a decode step, cut where what is wanted of them changes."""
    return [
        (0, first, sequence[first:last], last - first if wanted[first] else 0)
        for first, last in _runs(wanted, start, stop)
    ]


def _runs(flags: npt.NDArray[np.bool_], start: int, stop: int) -> Iterator[tuple[int, int]]:
    first = start
    for at in range(start + 1, stop + 1):
        if at == stop or flags[at] != flags[first]:
            yield first, at
            first = at
