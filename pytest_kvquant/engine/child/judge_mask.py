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

    def name(self, at: int) -> str:
        return f"query {self.numbers[at]} (position {self.positions[at]})"

    def seen(self, mirror: Mirror, windows: I64) -> Bools:
        """What each should see, shape ``(queries, cells)``."""
        cells = self.given.shape[1]
        return mirror.seen(self.positions, self.sequences, self.start, cells, windows)


def _first_wrong(
    queries: Sequence[_Queries], mirror: Mirror, window: int, *, bias: bool, chunked: bool
) -> str:
    for some in queries:
        windows = np.full(len(some.positions), window)
        if chunked and window:
            windows = some.positions % window + 1
        if text := _wrong(some, mirror, windows, bias=bias):
            return text
    return ""


def _wrong(some: _Queries, mirror: Mirror, windows: I64, *, bias: bool) -> str:
    """What is wrong first, in words; all queries are looked at at once.

    Args:
        windows: of each query; 0: it sees all.
    """
    start, cells = some.start, some.given.shape[1]
    seen, shown = some.seen(mirror, windows), some.given > SHOWN
    if mirror.restored:
        free = mirror.free(start, cells)
        found = shown[:, free].sum(axis=1)
        asked = zip(some.positions, some.sequences, windows, strict=True)
        meant = np.array([mirror.seen_restored(*map(int, one)) for one in asked])
        if (differ := found != meant).any():
            at = int(differ.argmax())
            return (
                f"{some.name(at)}: of a restored state it shows {found[at]} cells, and the query "
                f"sees {meant[at]}"
            )
        shown &= ~free
    if (differ := shown != seen).any():
        at, cell = _first(differ)
        state = "hides" if seen[at, cell] else "shows"
        return (
            f"{some.name(at)}: it {state} cell {cell}, which holds position "
            f"{int(mirror.where[start + cell])} ({int(differ[at].sum())} cells are wrong)"
        )
    added = np.zeros_like(some.given)
    if bias:
        added -= np.abs(some.positions[:, None] - mirror.where[start : start + cells])
    if (off := seen & (np.abs(some.given - added) > np.abs(added) / 1024)).any():
        at, cell = _first(off)
        given, meant = some.given[at, cell], added[at, cell]
        return f"{some.name(at)}: it adds {given:g} to cell {cell} instead of {meant:g}"
    return ""


def _first(wrong: Bools) -> tuple[int, int]:
    """Query and cell."""
    at, cell = np.unravel_index(wrong.argmax(), wrong.shape)
    return int(at), int(cell)


def _shows_more(some: _Queries, mirror: Mirror) -> bool:
    """Whether a cell is shown that not even a query without a window sees."""
    seen = some.seen(mirror, np.zeros(1, np.int64))
    return bool(((some.given > SHOWN) & ~seen).any())


def _first_stream(keys: Node, placed: Placed) -> int:
    """The stream that the keys of an attention begin with.

    Attention on another device than the cache's reads a copy, which the scheduler names
    ``CPU#cache_k_l0 (view)#0``; it begins with the first sequence of the batch.
    """
    if keys.copied:
        return int(min(placed.sequences))
    return int(keys.offset // keys.root.nb[2])
