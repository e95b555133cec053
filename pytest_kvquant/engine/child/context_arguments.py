"""Child side: the shape of a context, from a message to the names that a context takes."""

from __future__ import annotations

from typing import TypedDict

from pytest_kvquant.engine.messages.cell import ContextShape


class ContextArguments(TypedDict):
    """The shape by the names that :class:`pytest_kvquant.engine.child.context.Context` takes."""

    type_k: str
    type_v: str
    ctx: int
    sequences: int
    batch: int
    ubatch: int
    threads: int


def arguments(shape: ContextShape) -> ContextArguments:
    """The shape that a message says."""
    return {
        "type_k": shape.type_k,
        "type_v": shape.type_v,
        "ctx": shape.ctx,
        "sequences": shape.sequences,
        "batch": shape.batch,
        "ubatch": shape.ubatch,
        "threads": shape.threads,
    }
