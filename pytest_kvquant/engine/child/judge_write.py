"""Child side: rows written to a cache, against the reference quantizer of the rows handed in."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.child.edges import edges
from pytest_kvquant.engine.child.finding import Corner, NodeFinding, length_class
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.numerics import writes
from pytest_kvquant.numerics.arrays import F32, I64, U8

BLANK = 0x5A
"""A byte of a row that is still to be written: finite as a scale, and far from any row."""

MOST_ROWS = 64
"""Rows of one write that are compared; all of smaller ones."""


UNPACKED = 1e-9
"""NMSE of a row that was read out of a cache to f32: a few roundings."""


FEW_CELLS = 256
"""Cells up to which a write says nothing of where: a library looks at as many in any case."""


class Write(NamedTuple):
    """Sampled rows of one write."""

    rows: I64
    cells: I64
    source: F32
    stored: U8


def read(node: Node, values: Values, rng: np.random.Generator) -> Write | None:
    """What SET_ROWS was handed and what lies in the cache now; ``None`` where rows are no rows.

    A transposed V is written element by element: its rows are one element long.
    """
    source, places = node.source(0), node.source(1)
    assert source is not None
    assert places is not None
    if source.ne[2] * source.ne[3] > 1 or places.ne[1] > 1:
        return None
    rows = _sample(source.ne[1], rng)
    raw = values.plane(source, rows=rows)
    given = values.floats(raw, source.type).astype(np.float32)
    cells = values.plane(places)[0].view(np.int64 if places.type == "i64" else np.int32)
    where = cells[rows].astype(np.int64)
    stored = values.plane(node, rows=where)
    return Write(rows, where, given, stored)


def blank(node: Node, cells: I64) -> None:
    """Overwrite the rows that a SET_ROWS node is about to write.

    The same tokens have been written there in a batch of another size: a row that is not written
    now would hold what it should, and nobody would see it.
    """
    source, root = node.source(0), node.root
    if source is None or source.ne[0] != root.ne[0] or source.ne[2] * source.ne[3] > 1:
        return  # a transposed V is written element by element
    size = root.ggml.row_bytes(root.type, root.ne[0])
    close = size == root.nb[1]
    starts = np.flatnonzero(np.diff(cells, prepend=-2) != 1) if close else np.arange(len(cells))
    for start, stop in itertools.pairwise([*starts.tolist(), len(cells)]):
        rows = np.full((stop - start) * size, BLANK, np.uint8)
        root.ggml.write(root.raw, rows, int(cells[start]) * root.nb[1])


def judge(
    node: Node, values: Values, rng: np.random.Generator, layer: int
) -> list[NodeFinding] | None:
    """The written rows of a SET_ROWS node, byte by byte; ``None`` where its form is not known."""
    found = read(node, values, rng)
    return None if found is None else _judged(found, node, values, layer)


def judge_copy(
    node: Node, values: Values, rng: np.random.Generator, layer: int
) -> list[NodeFinding] | None:
    """A CPY into the cache (keys that were turned by a shift), or out of it before that.

    ``None`` where its form is not known.
    """
    source = node.source(0)
    if node.root.op != "NONE":
        return _judge_unpacked(node, values, rng, layer)
    if source is None or source.type != "f32" or source.ne != node.ne or node.ne[3] > 1:
        return None
    cells = _sample(node.ne[2], rng)
    given = np.concatenate([values.rows(source, int(cell)) for cell in cells])
    stored = np.concatenate([values.plane(node, int(cell)) for cell in cells])
    where = np.repeat(cells, node.ne[1])
    return _judged(Write(where, where, given.astype(np.float32), stored), node, values, layer)


def _judge_unpacked(
    node: Node, values: Values, rng: np.random.Generator, layer: int
) -> list[NodeFinding] | None:
    """Rows of a cache that were made numbers of."""
    source = node.source(0)
    if source is None or node.type != "f32" or source.ne != node.ne or node.ne[3] > 1:
        return None
    cells = _sample(node.ne[2], rng)
    meant = np.concatenate([values.rows(source, int(cell)) for cell in cells])
    found = np.concatenate([values.rows(node, int(cell)) for cell in cells])
    size = np.square(meant).sum(axis=1)
    share = np.square(found - meant).sum(axis=1) / np.maximum(size, 1e-6 * size.mean() + 1e-30)
    share[~np.isfinite(share)] = np.inf
    worst, at = float(share.max(initial=0)), int(share.argmax())
    corner = Corner(
        "plain", source.type, head_k=node.ne[0], tokens=node.ne[2], backend=node.backend
    )
    text = ""
    if not worst <= UNPACKED:
        text = (
            f"{node.op} of {source.root.name} to f32 on {node.backend}: cell "
            f"{int(cells[at // node.ne[1]])}: NMSE {worst:.2g}"
        )
    return [NodeFinding(corner, node.name, layer, worst, UNPACKED, float(share.mean()), text)]


def _judged(found: Write, node: Node, values: Values, layer: int) -> list[NodeFinding]:
    codec = values.codecs[node.type]
    if node.type == "f16":
        meant = found.source.astype(np.float16).view(np.uint8).reshape(len(found.rows), -1)
        held, wanted = (raw.view(np.float16).astype(np.float32) for raw in (found.stored, meant))
        rounding, block = 2.0**-20, 32
    else:
        meant = codec.quantize(found.source)
        held, wanted = codec.floats(found.stored), codec.floats(meant)
        rounding, block = (
            codec.basis(_head(found.source.shape[1], codec.block)).rounding,
            codec.block,
        )
    compared = writes.compare(found.stored, meant, held, wanted, block=block, rounding=rounding)
    on_cpu = node.on_cpu
    right = writes.is_right(compared, elsewhere=not on_cpu)
    limit = max(
        writes.TIES if on_cpu else writes.TIES_ELSEWHERE, writes.FEW / max(compared.bytes, 1)
    )
    side, elements = "V" if "cache_v" in node.name else "K", node.ne[0]
    corner = Corner(
        "write", tokens=node_rows(node), backend=node.backend,
        length=length_class(int((found.cells % max(node.root.ne[1], 1)).max(initial=FEW_CELLS))),
    )  # fmt: skip
    if side == "K":
        corner = corner._replace(k_type=node.type, head_k=elements)
    else:
        corner = corner._replace(v_type=node.type, head_v=elements)
    text = "" if right else _words(side, node, found, compared)
    figure = compared.differing if right else max(compared.differing, 2 * limit)
    return [NodeFinding(corner, node.name, layer, figure, limit, compared.error, text)]


def node_rows(node: Node) -> int:
    """How many rows a write hands in."""
    source = node.source(0)
    return source.ne[1 if node.op == "SET_ROWS" else 2] if source is not None else 0


def _head(elements: int, block: int) -> int:
    for size in (256, 128, 64, 32):
        if elements % size == 0 and size % block == 0:
            return size
    return max(block, 1)


def _sample(rows: int, rng: np.random.Generator) -> I64:
    if rows <= MOST_ROWS:
        return np.arange(rows)
    some = {1, rows - 2, *rng.choice(rows, MOST_ROWS // 2, replace=False).tolist()}
    return np.array(sorted(some | edges(rng, rows)), np.int64)


def _words(side: str, node: Node, found: Write, compared: writes.Written) -> str:
    row, cell = int(found.rows[compared.row]), int(found.cells[compared.row])
    return (
        f"write of {side} as {node.type}, rows of {node.ne[0]} elements, {node_rows(node)} tokens, "
        f"on {node.backend}: {compared.differing:.2%} of the bytes are not the reference "
        f"quantizer's, {compared.worst:.0%} of row {row} (cell {cell}); {compared.blocks} blocks "
        f"differ by more than the type's rounding, NMSE {compared.error:.2g}"
    )
