"""Child side: which operations of a cell's graph run on which device.

A cache can lie on the GPU while its attention is computed on the CPU: a backend that has no kernel
for a pair of types says so to the scheduler, which hands the node to the next one, copies and all.
Results are right, and slower by a factor that grows with the depth. The scheduler asks its eval
callback about each node before it is computed; nothing is wanted here, so that the graph is
computed as without one.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.nodes import Ggml, Node, TensorPointer
from pytest_kvquant.engine.messages.cell import OperationsOnDevice
from pytest_kvquant.engine.sequences import from_start

VIEWS = frozenset({"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"})
"""Operations that compute nothing."""

TOKENS = 64
"""Prefilled in one batch; then one more comes alone."""


class Place(NamedTuple):
    """One kind of operation on one device."""

    op: str
    """As ggml names it; ``*`` for all that do not touch the cache."""
    types: str
    """``K/V`` of attention, the type written to; empty for others."""
    head: int
    """Elements of a head of the query, for attention; 0 for others."""
    device: str
    """Name of the buffer that its result lies in."""


class OpCensus:
    """Counts nodes while a context decodes; see :meth:`attach`.

    Raises:
        BadLibrary: nodes of this library cannot be read.
    """

    def __init__(self, ggml: Ggml) -> None:
        self._ggml = ggml
        self.counts: Counter[Place] = Counter()

    def attach(self, parameters: ctypes.Structure) -> None:
        """Put the callback into the parameters of a context."""
        kind = dict((entry[0], entry[1]) for entry in parameters._fields_)["cb_eval"]
        self._callback = kind(self._called)
        parameters.cb_eval = self._callback

    def _called(self, pointer: int, ask: bool, _data: object) -> bool:
        if ask:
            self._count(Node(self._ggml, ctypes.cast(pointer, TensorPointer)))
        return False

    def _count(self, node: Node) -> None:
        if node.op in VIEWS:
            return
        place = Place("*", "", 0, node.backend)
        if node.op == "SET_ROWS":
            place = Place(node.op, node.type, 0, node.backend)
        elif node.op == "FLASH_ATTN_EXT":
            query, k, v = (node.source(number) for number in range(3))
            if query and k and v:
                place = Place(node.op, f"{k.type}/{v.type}", query.ne[0], node.backend)
        self.counts[place] += 1


def take(
    model: LoadedModel, type_k: str, type_v: str, *, threads: int
) -> dict[str, list[OperationsOnDevice]]:
    """Operations by path, from a small context of these types.

    Returns:
        For ``prefill`` and ``decode``.

    Raises:
        Refused: the library makes no such context.
        DecodeFailed: it does not decode.
    """
    census = OpCensus(Ggml(model.library))
    context = Context(
        model,
        type_k=type_k,
        type_v=type_v,
        ctx=2 * TOKENS,
        sequences=1,
        batch=TOKENS,
        ubatch=TOKENS,
        threads=threads,
        prepare=census.attach,
    )
    found = {}
    try:
        for path, start, count in (("prefill", 0, TOKENS), ("decode", TOKENS, 1)):
            census.counts.clear()
            places = np.arange(start, start + count, dtype=np.int32)
            tokens = from_start(0 * places, model.bos) if start == 0 else 0 * places
            context.decode(tokens, places, 0 * places, places == start + count - 1)
            found[path] = [
                OperationsOnDevice(**place._asdict(), nodes=nodes)
                for place, nodes in census.counts.items()
            ]
    finally:
        context.close()
    return found
