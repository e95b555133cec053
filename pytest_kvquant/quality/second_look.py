"""Batch sizes of the ladder that are out of bounds, looked at again with other tokens.

A model that chooses experts turns the last bit of a sum into another expert, and the logits of that
token jump: on the zoo's gpt-oss-64, whose window puts rows into other cells when they come again,
f16 was 0.022 nats from itself in a batch of 8, and 4e-6 with other tokens. Such a jump belongs to
its tokens and does not come back with others. A batch size whose kernels are wrong does, so that
the smaller of two figures is the one to judge.

That holds for a fault that is always there. One that comes and goes (a race) may just be away when
other tokens are played. On a CPU the same steps give the same bits, so there the same text is
computed once more first, in a fresh context: what does not give the same figure again is no jump.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import msgspec

from pytest_kvquant.engine.messages.kernels import Rung
from pytest_kvquant.quality import batch_noise
from pytest_kvquant.quality.scenario_limits import f16_apart
from pytest_kvquant.results.kernels import Examination, RungRecord

MOST = 1.0
"""Nats, in the mean of a batch: no jump of single tokens comes to so much; it is not excused."""


def doubtful(found: Examination, reference: Examination | None) -> list[tuple[int, list[int]]]:
    """Depths and batch sizes whose figure may be out of bounds, with the largest size of the depth.

    Args:
        reference: of f16; ``None`` where that is what is judged.
    """
    wanted: dict[int, set[int]] = {}
    for one in found.rungs:
        if one.unsteady is not None:
            continue
        limit = _limit(found, reference, one)
        fused = None if batch_noise.on_cpu(found) else one.fused  # there no bit may change
        if may_be_a_jump(one.own, limit) or may_be_a_jump(fused, limit):
            largest = max(other.tokens for other in found.rungs if other.depth == one.depth)
            wanted.setdefault(one.depth, {largest}).add(one.tokens)
    return [(depth, sorted(sizes)) for depth, sizes in sorted(wanted.items())]


def repeated(
    found: Examination, reference: Examination | None, seen: Sequence[Rung]
) -> tuple[RungRecord, ...]:
    """The rungs after the same text was computed once more on a CPU.

    Those whose figure is out of bounds in one of both, and not the same, are marked as unsteady,
    with the larger of both figures as theirs.
    """
    again = {(one.depth, one.tokens): one for one in seen}

    def both(one: RungRecord) -> RungRecord:
        other = again.get((one.depth, one.tokens))
        if other is None:
            return one
        figures = [figure for figure in (one.own, other.own) if figure is not None]
        fused = max((x for x in (one.fused, other.fused) if x is not None), default=None)
        one = msgspec.structs.replace(one, fused=fused)
        limit = _limit(found, reference, one)
        if len(figures) < 2 or same(*figures) or max(figures) <= limit:
            return one
        return msgspec.structs.replace(one, own=max(figures), unsteady=min(figures))

    return tuple(both(one) for one in found.rungs)


def same(one: float, other: float) -> bool:
    """Whether two computations of the same gave the same, nats."""
    return math.isclose(one, other, rel_tol=1e-6)


def _limit(found: Examination, reference: Examination | None, one: RungRecord) -> float:
    if reference is None:
        return f16_apart(found)
    return batch_noise.of_pair(found, reference, one.depth, one.tokens, 0.0)


def may_be_a_jump(apart: float | None, limit: float) -> bool:
    """Whether a figure, nats, is out of bounds and yet small enough for a jump of single tokens."""
    return apart is not None and limit < apart < MOST


def looked_again(rungs: Collection[RungRecord], seen: Sequence[Rung]) -> tuple[RungRecord, ...]:
    """The rungs, those that were seen again with the smaller of both figures."""
    again = {(one.depth, one.tokens): one for one in seen}

    def both(one: RungRecord) -> RungRecord:
        other = again.get((one.depth, one.tokens))
        if other is None:
            return one
        own, fused = _smaller(one.own, other.own), _smaller(one.fused, other.fused)
        cost = one.cost if own == one.own or other.cost is None else other.cost
        return msgspec.structs.replace(one, own=own, cost=cost, fused=fused, looks=2)

    return tuple(both(one) for one in rungs)


def _smaller(one: float | None, other: float | None) -> float | None:
    return one if one is None or other is None else min(one, other)
