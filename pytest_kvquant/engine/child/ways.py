"""Child side: which way a tensor came through the graph."""

from __future__ import annotations

import re
from typing import NamedTuple

from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.unjudged import CACHES

ROTATIONS = {"attn_inp_k_rot", "attn_inp_v_rot"}
"""Inputs of the graph that hold a Hadamard matrix."""

CARRIES = frozenset(
    {"SCALE", "ROPE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "CONT", "PAD", "TURBO_WHT"}
)
"""Operations through which queries come from their projection."""

KEYS = "cache_k"
"""How names of caches of keys begin."""

_LAYER_OF_KEYS = re.compile(KEYS + r"_l(\d+)")

COPIES = frozenset({"CPY", "CONT", "VIEW", "RESHAPE", "PERMUTE"})


def mask_made_of(node: Node) -> str | None:
    """The operation that an attention's mask comes from, if it is no input of the graph."""
    mask = _original(node.source(3 if node.op == "FLASH_ATTN_EXT" else 1))
    while mask is not None and mask.op in COPIES:
        mask = _original(mask.source(0))
    return None if mask is None or mask.op == "NONE" else mask.op


def _original(node: Node | None) -> Node | None:
    return None if node is None else node.original


def scaled_before(query: Node) -> float | None:
    """By what queries were multiplied on their way from the projection; ``None``: not known."""
    factor, node = 1.0, query.original
    while node is not None and ((rotates := _rotates(node)) or node.op in CARRIES):
        if node.op == "SCALE":
            factor *= float(node.floats[0])
        source = node.source(1 if rotates else 0)
        if source is None:
            break
        node = source.original
    return factor if node is not None else None


class Scaled(NamedTuple):
    """How scores came from queries and keys."""

    scale: float | None
    """Of queries times keys, all in all; ``None``: not known."""
    softcap: float


def scored_before(scores: Node | None) -> Scaled | None:
    """How the input of a softmax came from queries and the cache's keys.

    ``None`` where it did not: the softmax of a router.
    """
    outer, node, capped = 1.0, None if scores is None else scores.original, False
    inner = 1.0
    while node is not None and (node.op in ("SCALE", "RESHAPE", "VIEW", "CONT") or _caps(node)):
        if _caps(node):
            capped, outer, inner = True, outer * inner, 1.0
        elif node.op == "SCALE":
            inner *= float(node.floats[0])
        source = node.source(0)
        node = None if source is None else source.original
    if node is None or node.op not in ("MUL_MAT", "ADD"):
        return None
    if node.op == "ADD":
        return Scaled(None, 0.0)  # a bias of the scores, not of the mask
    keys, query = node.source(0), node.source(1)
    if keys is None or query is None or not keys.root.name.startswith(KEYS):
        return None
    before = scaled_before(query)
    return Scaled(None if before is None else outer * inner * before, outer if capped else 0.0)


def _caps(node: Node) -> bool:
    return node.op == "UNARY" and node.function == "TANH"


def _rotates(node: Node) -> bool:
    """Whether it is a rotation that the graph makes before keys are quantized."""
    left = node.source(0) if node.op == "MUL_MAT" else None
    return left is not None and left.name in ROTATIONS


def holder_of(node: Node, layer: int) -> int:
    """The layer whose keys an attention reads: mostly its own."""
    keys = node.source(1) if node.op == "FLASH_ATTN_EXT" else node.source(0)
    while keys is not None and not (found := _LAYER_OF_KEYS.search(keys.root.name)):
        keys = keys.original.source(0) if keys.original is not None else None
    return layer if keys is None or found is None else int(found[1])


def cache_of(node: Node) -> Node | None:
    """The cache that a rope turns in place; ``None`` for the rope of fresh keys and queries."""
    source = node.source(0)
    while source is not None:
        if source.root.name.startswith(KEYS):
            return source.root
        if source.op not in ("CPY", "MUL_MAT", "RESHAPE", "VIEW", "TURBO_WHT"):
            return None
        source = source.source(1 if source.op == "MUL_MAT" else 0)
    return None


def writes_cache(node: Node) -> bool:
    """Whether rows go into a KV cache; those of a recurrent state are none of attention's."""
    return node.op == "SET_ROWS" and node.root.name.startswith(CACHES)
