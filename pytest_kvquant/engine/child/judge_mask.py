"""Child side: an attention mask against what each query may see."""

from __future__ import annotations

import numpy as np

from pytest_kvquant.engine.child.finding import Corner, NodeFinding
from pytest_kvquant.engine.child.mirror import Mirror, Placed
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.values import Values

MOST_ROWS = 48
"""Query rows that are looked at; all where there are fewer."""


def judge_mask(
    node: Node,
    values: Values,
    mirror: Mirror,
    placed: Placed,
    window: int | None,
    layer: int,
    *,
    chunked: bool = False,
) -> list[NodeFinding]:
    """The mask of an attention or softmax node, for every cell of some query rows.

    Args:
        window: tokens that the layer looks back on; 0: all; ``None``: either, the header does not
            say which.
        chunked: windows begin at multiples of their length (``LLAMA_SWA_TYPE_CHUNKED``).
    """
    flash = node.op == "FLASH_ATTN_EXT"
    mask, keys = (node.source(3), node.source(1)) if flash else (node.source(1), node)
    if mask is None or keys is None:
        return []
    cells = keys.ne[1] if flash else node.ne[0]
    streams = mask.ne[3]
    each = len(placed.positions) // streams
    first = _first_stream(keys, placed) * mirror.size if flash and not mirror.unified else 0
    bias = bool(node.floats[1] > 0)
    corner = Corner("mask", tokens=each, backend=node.backend)
    corner = corner._replace(mask="window" if window else "causal")
    for stream in range(streams):
        rows = np.unique(np.linspace(0, each - 1, min(each, MOST_ROWS)).astype(np.int64))
        shown = values.rows(mask, 0, stream, rows)[:, :cells]
        for row, given in zip(rows.tolist(), shown, strict=True):
            at = stream * each + row
            position, sequence = int(placed.positions[at]), int(placed.sequences[at])
            start = first + (stream * mirror.size if streams > 1 else 0)
            length = position % window + 1 if chunked and window else window
            text = _wrong(given, mirror, position, sequence, start, length, bias=bias)
            if text:
                words = f"mask of layer {layer}, query {row} (position {position}): {text}"
                return [NodeFinding(corner, mask.name, layer, 2, 1, 0, words)]
    return [NodeFinding(corner, mask.name, layer, 0, 1, 0)]


def _first_stream(keys: Node, placed: Placed) -> int:
    """The stream that the keys of an attention begin with.

    Attention on another device than the cache's reads a copy, which the scheduler names
    ``CPU#cache_k_l0 (view)#0``; it begins with the first sequence of the batch.
    """
    if keys.copied:
        return int(min(placed.sequences))
    return int(keys.offset // keys.root.nb[2])


def _wrong(
    given: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    mirror: Mirror,
    position: int,
    sequence: int,
    start: int,
    window: int | None,
    *,
    bias: bool,
) -> str:
    best = ""
    for length in (0, -1) if window is None else (window,):
        if length < 0:
            return best  # neither form is known for certain
        seen = mirror.seen(position, sequence, start, len(given), length)
        shows = given > -1e30
        if (differ := np.flatnonzero(shows != seen)).size:
            cell = int(differ[0])
            where = int(mirror.where[start + cell])
            state = "hides" if seen[cell] else "shows"
            best = (
                f"it {state} cell {cell}, which holds position {where}"
                f" ({differ.size} cells are wrong)"
            )
            continue
        distance = np.abs(position - mirror.where[start : start + len(given)])
        meant = -distance.astype(np.float64) if bias else np.zeros(len(given))
        if (off := np.flatnonzero(seen & (np.abs(given - meant) > np.abs(meant) / 1024))).size:
            cell = int(off[0])
            return f"it adds {given[cell]:g} to cell {cell} instead of {meant[cell]:g}"
        return ""
    return best
