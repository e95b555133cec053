"""Child side: what an attention node was handed and what it gave, head by head."""

from __future__ import annotations

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


class Head(NamedTuple):
    """One head of one stream, ready to be judged and to be written to a file."""

    stream: int
    head: int
    rows: I64
    q: F64
    k: F64
    v: F64
    mask: F64
    out: F64
    how: attention.Scores


def heads_of(node: Node, values: Values, sample: Sample) -> list[Head]:
    """Inputs and outputs of the sampled heads."""
    inputs, how = Inputs.of(node), parameters(node)
    queries, heads = inputs.q.ne[1], inputs.q.ne[2]
    slopes = attention.slopes(heads, how.bias)
    sinks = None if inputs.sinks is None else values.rows(inputs.sinks)[0]
    found: list[Head] = []
    cached: dict[tuple[int, int, int], F64] = {}
    for stream in sample.streams:
        mask = _mask(inputs, values, sample.rows, stream)
        for head in sample.heads:
            at = [_shared(head, heads, side.ne[2]) for side in (inputs.k, inputs.v)]
            planes = []
            for side, place in zip((inputs.k, inputs.v), at, strict=True):
                key = (side.address, place, stream)
                if key not in cached:
                    cached[key] = values.rows(side, place, stream * side.ne[3] // inputs.q.ne[3])
                planes.append(cached[key])
            q = values.rows(inputs.q, head, stream, sample.rows)
            out = _out(node, head, stream, sample.rows, queries)
            sink = None if sinks is None else float(sinks[head])
            scores = attention.Scores(how.scale, how.softcap, float(slopes[head]), sink)
            k, v = planes
            found.append(Head(stream, head, sample.rows, q, k, v, mask, out, scores))
    return found


def _mask(inputs: Inputs, values: Values, rows: I64, stream: int) -> F64:
    cells = inputs.k.ne[1]
    if inputs.mask is None:
        return np.zeros((len(rows), cells))
    at = stream % inputs.mask.ne[3]
    return values.rows(inputs.mask, 0, at, rows)[:, :cells]


def _out(node: Node, head: int, stream: int, rows: I64, queries: int) -> F64:
    """Rows of one head of the output, whose shape is (value size, heads, queries, streams)."""
    size = node.ne[0] * 4
    memory = node.bytes()
    start = stream * node.nb[3] + head * node.nb[1]
    view = np.ndarray((queries, size), np.uint8, memory, start, (node.nb[2], 1))
    return np.ascontiguousarray(view[rows]).view(np.float32).astype(np.float64)


def _shared(head: int, heads: int, kv_heads: int) -> int:
    return head // (heads // kv_heads)
