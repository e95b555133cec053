"""Child side: an attention mask against what each query may see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.child.finding import Corner, NodeFinding, length_class
from pytest_kvquant.engine.child.mirror import Bools, Mirror, Placed
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.numerics.arrays import F64, I64, distinct

MOST_ROWS = 48
"""Query rows that are looked at; all where there are fewer."""

SHOWN = -1e30
"""What is larger shows a cell."""


def judge_mask(
    node: Node,
    values: Values,
    mirror: Mirror,
    placed: Placed,
    windows: Sequence[int],
    layer: int,
    *,
    chunked: bool = False,
) -> list[NodeFinding] | None:
    """The mask of an attention or softmax node, for every cell of some query rows.

    ``None`` where several windows are possible and it is none of them, but nothing is shown that no
    window shows: the layer may have a window of another kind.

    Args:
        windows: tokens that the layer looks back on; 0: all. Several: one of them, for all rows;
            the header does not say which.
        chunked: windows begin at multiples of their length (``LLAMA_SWA_TYPE_CHUNKED``).
    """
    flash = node.op == "FLASH_ATTN_EXT"
    mask, keys = (node.source(3), node.source(1)) if flash else (node.source(1), node)
    if keys is None or (mask is None and not (flash and keys.root.name.startswith("cache_k"))):
        return []  # a router's
    cells = keys.ne[1] if flash else node.ne[0]
    streams, name = (1, node.name) if mask is None else (mask.ne[3], mask.name)
    each = len(placed.positions) // streams
    first = _first_stream(keys, placed) * mirror.size if flash and not mirror.unified else 0
    bias = bool(node.floats[1] > 0)
    corner = Corner("mask", tokens=each, length=length_class(cells), backend=node.backend)
    corner = corner._replace(mask="window" if all(windows) else "causal")
    queries: list[_Queries] = []
    for stream in range(streams):
        which = distinct(np.linspace(0, each - 1, min(each, MOST_ROWS)).astype(np.int64))
        shown = np.zeros((len(which), cells))  # without a mask everything
        if mask is not None:
            shown = values.rows(mask, 0, stream, which)[:, :cells]
        at = stream * each + which
        start = first + (stream * mirror.size if streams > 1 else 0)
        queries.append(_Queries(which, shown, placed.positions[at], placed.sequences[at], start))
    text = ""
    for window in windows:
        text = _first_wrong(queries, mirror, window, bias=bias, chunked=chunked)
        if not text:
            return [NodeFinding(corner, name, layer, 0, 1, 0)]
    if len(windows) > 1 and not any(_shows_more(some, mirror) for some in queries):
        return None
    words = f"mask of layer {layer}, {text}"
    return [NodeFinding(corner, name, layer, 2, 1, 0, words)]


class _Queries(NamedTuple):
    """What queries of one stream are shown."""

    numbers: I64
    given: F64
    """Shape ``(queries, cells)``."""
    positions: I64
    sequences: I64
    start: int
    """The first of the cells that they are about."""


def _first_wrong(
    queries: Sequence[_Queries], mirror: Mirror, window: int, *, bias: bool, chunked: bool
) -> str:
    for some in queries:
        lengths = some.positions % window + 1 if chunked and window else np.full(1, window)
        seen = mirror.seen(some.positions, some.sequences, some.start, some.given.shape[1], lengths)
        if not mirror.restored and _right(some, mirror, seen, bias=bias):
            continue
        for at, length in enumerate(np.broadcast_to(lengths, some.positions.shape).tolist()):
            if text := _wrong(some, at, seen[at], mirror, length, bias=bias):
                return f"query {some.numbers[at]} (position {some.positions[at]}): {text}"
    return ""


def _right(some: _Queries, mirror: Mirror, seen: Bools, *, bias: bool) -> bool:
    """Whether all queries are shown what they should see, all of them looked at at once."""
    if ((some.given > SHOWN) != seen).any():
        return False
    added = _added(some.positions[:, None], mirror, some, bias=bias)
    return not (seen & (np.abs(some.given - added) > np.abs(added) / 1024)).any()


def _added(position: I64, mirror: Mirror, some: _Queries, *, bias: bool) -> F64:
    """What the mask adds to scores: a distance where attention has a bias, else nothing."""
    if not bias:
        return np.zeros(1)
    where = mirror.where[some.start : some.start + some.given.shape[1]]
    return np.asarray(-np.abs(position - where), np.float64)


def _shows_more(some: _Queries, mirror: Mirror) -> bool:
    """Whether a cell is shown that not even a query without a window sees."""
    cells = some.given.shape[1]
    seen = mirror.seen(some.positions, some.sequences, some.start, cells, np.zeros(1, np.int64))
    return bool(((some.given > SHOWN) & ~seen).any())


def _first_stream(keys: Node, placed: Placed) -> int:
    """The stream that the keys of an attention begin with.

    Attention on another device than the cache's reads a copy, which the scheduler names
    ``CPU#cache_k_l0 (view)#0``; it begins with the first sequence of the batch.
    """
    if keys.copied:
        return int(min(placed.sequences))
    return int(keys.offset // keys.root.nb[2])


def _wrong(some: _Queries, at: int, seen: Bools, mirror: Mirror, window: int, *, bias: bool) -> str:
    given, start = some.given[at], some.start
    position, sequence = int(some.positions[at]), int(some.sequences[at])
    shown = given > SHOWN
    if mirror.restored:
        free = mirror.free(start, len(given))
        found, meant = int(shown[free].sum()), mirror.seen_restored(position, sequence, window)
        if found != meant:
            return f"of a restored state it shows {found} cells, and the query sees {meant}"
        shown &= ~free
    if (differ := np.flatnonzero(shown != seen)).size:
        cell = int(differ[0])
        where = int(mirror.where[start + cell])
        state = "hides" if seen[cell] else "shows"
        return (
            f"it {state} cell {cell}, which holds position {where} ({differ.size} cells are wrong)"
        )
    added = np.broadcast_to(_added(some.positions[at], mirror, some, bias=bias), given.shape)
    if (off := np.flatnonzero(seen & (np.abs(given - added) > np.abs(added) / 1024))).size:
        cell = int(off[0])
        return f"it adds {given[cell]:g} to cell {cell} instead of {added[cell]:g}"
    return ""
