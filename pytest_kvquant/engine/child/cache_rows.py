"""Child side: rows of an f16 cache, read and put back where a write has just put them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.numerics.arrays import I64, U8

SPREAD = 4
"""Cells between the first and the last one written, over those written: beyond, each is read by
itself."""


def read_cells(node: Node, cells: I64) -> U8:
    """Rows of some cells, shape ``(rows, bytes)``; of a single one the memory itself."""
    stride, width = int(node.nb[1]), 2 * int(node.ne[0])
    if len(cells) == 1:  # the decode path
        return node.bytes(width, int(cells[0]) * stride)[None]
    first = int(cells.min())
    span = int(cells.max()) + 1 - first
    if span <= SPREAD * len(cells):
        raw = node.bytes((span - 1) * stride + width, first * stride)
        every = np.lib.stride_tricks.as_strided(raw, (span, width), (stride, 1), writeable=False)
        return every[cells - first]
    return np.stack([node.bytes(width, int(cell) * stride) for cell in cells])


def write_cells(node: Node, cells: I64, rows: U8) -> None:
    """Put rows into cells, neighbours at once."""
    stride, width = int(node.nb[1]), rows.shape[1]
    if len(cells) == 1:
        node.ggml.write(node.raw, rows.reshape(-1), int(cells[0]) * stride)
        return
    joins = np.diff(cells) == 1 if stride == width else np.zeros(len(cells) - 1, np.bool_)
    starts = [0, *(np.flatnonzero(~joins) + 1).tolist(), len(cells)]
    for start, stop in pairwise(starts):
        node.ggml.write(node.raw, rows[start:stop].reshape(-1), int(cells[start]) * stride)
