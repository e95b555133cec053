"""Child side: what an attention node was handed and what it gave, head by head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.child.edges import edges
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.numerics import attention
from pytest_kvquant.numerics.arrays import F64, I64


class Sample(NamedTuple):
    """What is looked at in a node."""

    heads: list[int]
    rows: I64
    streams: list[int]


FEW_ROWS = 9
"""Query tokens up to which more heads are looked at: they cost little then."""

MANY_HEADS, FEW_HEADS = 8, 3

AT_ONCE = 1 << 21
"""Elements of keys and values that are computed with at once, about."""


def _heads(rng: np.random.Generator, heads: int, most: int) -> list[int]:
    """The first, the last, and others."""
    others = rng.permutation(np.arange(1, max(heads - 1, 1)))[: max(0, most - 2)].tolist()
    return sorted({0, heads - 1, *(int(one) for one in others)})


def _streams(rng: np.random.Generator, streams: int, rows: int) -> list[int]:
    """The first, the last, and one between; all where each has few rows."""
    if rows <= FEW_ROWS or streams <= 2:
        return list(range(streams))
    return [0, int(rng.integers(1, streams - 1)), streams - 1]


def choose(rng: np.random.Generator, heads: int, rows: int, streams: int, most: int) -> Sample:
    """First, last and other heads and streams; rows at edges, in the middle, others."""
    picked = {rows // 2, *edges(rng, rows)}
    while len(picked) < min(most, rows):
        picked.add(int(rng.integers(rows)))
    return Sample(
        _heads(rng, heads, MANY_HEADS if rows <= FEW_ROWS else FEW_HEADS),
        np.array(sorted(picked)[:: max(1, len(picked) // (2 * most))], np.int64),
        _streams(rng, streams, rows),
    )


class Parameters(NamedTuple):
    """What the operation says of itself; compared with the header elsewhere."""

    scale: float
    bias: float
    softcap: float


def parameters(node: Node) -> Parameters:
    """The parameters of FLASH_ATTN_EXT."""
    return Parameters(*(float(one) for one in node.floats[:3]))


class Inputs(NamedTuple):
    """The tensors of an attention node."""

    q: Node
    k: Node
    v: Node
    mask: Node | None
    sinks: Node | None

    @classmethod
    def of(cls, node: Node) -> Inputs:
        """Those of FLASH_ATTN_EXT."""
        found = [node.source(number) for number in range(5)]
        q, k, v = found[:3]
        assert q is not None
        assert k is not None
        assert v is not None
        return cls(q, k, v, found[3], found[4])


class Operands(NamedTuple):
    """What a head computes with and what it gave; of some heads with a dimension in front."""

    q: F64
    k: F64
    v: F64
    mask: F64
    """Without that dimension: the same for all, shape ``(rows, cells)``."""
    out: F64
    how: attention.Scores


class Head(NamedTuple):
    """One head of one stream."""

    stream: int
    head: int
    rows: I64
    given: Operands


class Heads(NamedTuple):
    """Some heads of one stream."""

    stream: int
    heads: list[int]
    rows: I64
    given: Operands

    @property
    def each(self) -> Iterator[Head]:
        """One after the other."""
        q, k, v, mask, out, how = self.given
        sinks = None if how.sink is None else np.ravel(how.sink)
        for at, (head, slope) in enumerate(zip(self.heads, np.ravel(how.slope), strict=True)):
            sink = None if sinks is None else float(sinks[at])
            own = how._replace(slope=float(slope), sink=sink)
            yield Head(
                self.stream, head, self.rows, Operands(q[at], k[at], v[at], mask, out[at], own)
            )


def heads_of(node: Node, values: Values, sample: Sample, *, whole: bool = True) -> Iterator[Heads]:
    """Inputs and outputs of the sampled heads, as many at once as there is room for.

    Args:
        whole: also the cells that none of the sampled queries sees.
    """
    inputs, how = Inputs.of(node), parameters(node)
    slopes = attention.slopes(inputs.q.ne[2], how.bias)
    sinks = None if inputs.sinks is None else values.rows(inputs.sinks)[0]
    most = max(1, AT_ONCE // max(1, inputs.k.ne[1] * (inputs.k.ne[0] + inputs.v.ne[0])))
    for stream in sample.streams:
        mask, cells = _mask(inputs, values, sample.rows, stream), None
        if not (whole or (shown := (mask > -np.inf).any(axis=0)).all()):
            cells = np.flatnonzero(shown)
            mask = mask[:, cells]
        sides = [_Cached.of(side, inputs.q, values, sample, stream, cells) for side in inputs[1:3]]
        for start in range(0, len(sample.heads), most):
            heads = sample.heads[start : start + most]
            which = np.array(heads, np.int64)
            k, v = (side.planes[side.places[start : start + most]] for side in sides)
            scores = attention.Scores(
                how.scale, how.softcap, slopes[which][:, None, None],
                None if sinks is None else sinks[which][:, None, None],
            )  # fmt: skip
            q = values.planes(inputs.q, heads, stream, sample.rows)
            out = _out(node, which, stream, sample.rows)
            yield Heads(stream, heads, sample.rows, Operands(q, k, v, mask, out, scores))


class _Cached(NamedTuple):
    """What sampled heads read of the cache."""

    planes: F64
    """Keys or values of each KV head, shape ``(KV heads, cells, size)``."""
    places: I64
    """Of each sampled head, which of them."""

    @classmethod
    def of(
        cls, side: Node, q: Node, values: Values, sample: Sample, stream: int, cells: I64 | None
    ) -> _Cached:
        """All that the heads of one stream read, of some cells or all."""
        shared = [_shared(head, q.ne[2], side.ne[2]) for head in sample.heads]
        distinct = sorted(set(shared))
        planes = values.planes(side, distinct, stream * side.ne[3] // q.ne[3], cells)
        return cls(planes, np.array([distinct.index(one) for one in shared], np.int64))


def _mask(inputs: Inputs, values: Values, rows: I64, stream: int) -> F64:
    cells = inputs.k.ne[1]
    if inputs.mask is None:
        return np.zeros((len(rows), cells))
    at = stream % inputs.mask.ne[3]
    return values.rows(inputs.mask, 0, at, rows)[:, :cells]


def _out(node: Node, heads: I64, stream: int, rows: I64) -> F64:
    """Rows of some heads of the output, whose shape is (value size, heads, queries, streams)."""
    shape, strides = (node.ne[2], node.ne[1], node.ne[0]), (node.nb[2], node.nb[1], 4)
    view = np.ndarray(shape, np.float32, node.bytes(), stream * node.nb[3], strides)
    return view[rows[None, :], heads[:, None]].astype(np.float64)


def _shared(head: int, heads: int, kv_heads: int) -> int:
    return head // (heads // kv_heads)
