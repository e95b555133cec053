"""Child side: operations without a judgement, and whether attention rests on them.

Of a sampled layer everything up to the output projection is shown; the sum of a residual stream or
a recurrent state among it is no concern of attention. What is: the way from the projections to
attention and to the cache, from attention to the output projection, and whatever reads the cache.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator

from pytest_kvquant.engine.child.nodes import Node

CACHES = ("cache_k", "cache_v")
"""How names of the tensors of a KV cache begin."""

_WITHIN = re.compile(r"attn_(q|k|v|kv)_b\b")
"""Weights that multiply on the way from a projection to attention."""


class Unjudged:
    """Operations that were not understood, in one graph after the other.

    Args:
        unknown: counts those on which attention rests, by name.
    """

    def __init__(self, unknown: Counter[str]) -> None:
        self._unknown = unknown
        self._open: dict[int, str] = {}

    def begins(self) -> None:
        """A graph begins."""
        self._open.clear()

    def add(self, node: Node) -> None:
        """It was not understood."""
        if any(one.root.name.startswith(CACHES) for one in (node, *node.sources)):
            self._unknown[node.op] += 1
        else:
            self._open[node.address] = node.op

    def rests(self, node: Node) -> None:
        """Attention, a write to the cache, or the output projection: count what it rests on."""
        if not self._open:
            return
        for one in ancestors(*node.sources):
            if (op := self._open.pop(one.address, None)) is not None:
                self._unknown[op] += 1


def ancestors(*nodes: Node, until: Container[str] = ()) -> Iterator[Node]:
    """Nodes and what they are made of, back to projections.

    Args:
        until: operations behind which nobody looks.
    """
    seen: set[int] = set()
    waiting = list(nodes)
    while waiting:
        one = waiting.pop().original
        if one is None or one.address in seen:
            continue
        seen.add(one.address)
        yield one
        if not (_projects(one) or one.op in until):
            waiting.extend(one.sources)


def _projects(node: Node) -> bool:
    weight = node.source(0) if node.op in ("MUL_MAT", "MUL_MAT_ID") else None
    name = "" if weight is None else weight.root.name
    return name.startswith("blk.") and not _WITHIN.search(name)
