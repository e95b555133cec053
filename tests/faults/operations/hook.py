"""Runs in the real worker (``KVQUANT_WORKER_HOOK``) and spoils the operation named in
``KVQUANT_OPERATION_FAULT``, in memory, where its conditions hold; the oracle looks afterwards.

How often it did so is written to ``KVQUANT_OPERATION_HITS``: a fault that never lived proves
nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from pytest_kvquant.engine.child import operations, watch
from pytest_kvquant.engine.child.attention_inputs import (
    Inputs,
    Operands,
    Sample,
    heads_of,
)
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.ways import cache_of
from pytest_kvquant.numerics import attention
from pytest_kvquant.numerics.rope import turn

FAULT = json.loads(os.environ["KVQUANT_OPERATION_FAULT"])
HITS = Path(os.environ["KVQUANT_OPERATION_HITS"])
OPERATION, CHANGE, DOSE = FAULT["operation"], FAULT["change"], FAULT["dose"]
WHERE = FAULT["where"]
SPOILT_TYPES = tuple(FAULT["pair"].split("/"))


class State:
    """What has happened so far in this process."""

    rng = np.random.default_rng(7)
    after: set[str] = set()  # noqa: RUF012  (one process, one fault)
    hits = 0
    tokens = 0
    unified = False


def hit() -> None:
    State.hits += 1
    HITS.write_text(str(State.hits))


def lives(tokens: int, length: int = 0, layer: int = 0, side: str = "") -> bool:
    """Whether the fault's conditions hold here."""
    low, high = WHERE.get("tokens", (0, 1 << 30))
    short, long = WHERE.get("length", (0, 1 << 30))
    return (
        low <= tokens <= high
        and (not length or short <= length <= long)
        and WHERE.get("layer", layer) == layer
        and (not side or WHERE.get("side", side) == side)
        and ("after" not in WHERE or WHERE["after"] in State.after)
        and ("unified" not in WHERE or State.unified)
        and State.rng.random() < WHERE.get("chance", 1.0)
    )


def set_rows(node: Node, rows: np.ndarray, head: int, stream: int, out: np.ndarray) -> None:
    """Rows of one head of an attention node's output."""
    for row, values in zip(rows.tolist(), out, strict=True):
        offset = stream * node.nb[3] + head * node.nb[1] + row * node.nb[2]
        node.ggml.write(node.raw, values.astype(np.float32).view(np.uint8), offset)


def recomputed(given: Operands, change: str) -> np.ndarray | None:  # noqa: PLR0912  (a list)
    """The output of a head as a kernel with this fault gives it."""
    q, k, v, hidden, out, how = given
    mask = hidden.copy()
    seen = mask > -np.inf
    cells = np.arange(mask.shape[1])
    last = np.array([int(np.flatnonzero(row)[-1]) if row.any() else 0 for row in seen])
    if change == "scores":
        how = how._replace(scale=how.scale * (1 + DOSE))
    elif change == "values":
        v = v * (1 + DOSE)
    elif change == "past":
        mask[:, int(DOSE) :] = -np.inf
    elif change == "oldest":
        mask[:, : int(DOSE)] = -np.inf
    elif change == "newest":
        mask[cells[None, :] == last[:, None]] = -np.inf
    elif change == "tail":
        mask[cells[None, :] >= (last[:, None] // 32) * 32] = -np.inf
    elif change == "ahead":
        mask[cells[None, :] == last[:, None] + 1] = 0
    elif change == "no softcap":
        how = how._replace(softcap=0.0)
    elif change == "no sinks":
        how = how._replace(sink=None)
    elif change == "sink":
        how = how._replace(sink=(how.sink or 0.0) * (1 + DOSE) + DOSE)
    elif change == "slope":
        how = how._replace(slope=how.slope * (1 + DOSE))
    elif change == "exchanged":
        v = v.copy()
        v[[100, 101]] = v[[101, 100]]
    elif change == "coarse queries":
        q = (q.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)
    else:
        return None
    exact = attention.attend(given.q, given.k, given.v, hidden, given.how)
    wrong = attention.attend(q, k, v, mask, how)
    return out + wrong.out - exact.out


def edited(out: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The output with a fault that needs no inputs."""
    out = out.copy()
    size = out.shape[1]
    if CHANGE == "half":
        out[:, size // 2 :] = 0
    elif CHANGE == "tail elements":
        out[:, -32 if DOSE > 0 else -16 :] *= 1 + DOSE
    elif CHANGE == "last element":
        out[:, -1] = 0
    elif CHANGE == "sign":
        out[:, int(DOSE)] *= -1
    elif CHANGE == "last row":
        out[-1] = 0
    elif CHANGE == "last row scaled":
        out[-1] *= 1 + DOSE
    elif CHANGE == "row":
        at = int(DOSE) or 1
        out[at:] = out[0]
    elif CHANGE == "noise":
        out += State.rng.normal(0, DOSE * np.sqrt(np.square(out).mean()), out.shape)
    elif CHANGE == "nan":
        out[-1, 3] = np.nan
    else:
        raise AssertionError(CHANGE)
    return out


def spoil_attention(context: Any, node: Node, layer: int) -> None:
    values = context.oracle.values
    inputs = Inputs.of(node)
    tokens, heads, streams = inputs.q.ne[1], inputs.q.ne[2], inputs.q.ne[3]
    if streams < WHERE.get("streams", 1):
        return
    chosen = range(heads) if "head" not in WHERE else [WHERE["head"] % heads]
    if "group" in WHERE:  # all query heads of one KV head
        each = heads // inputs.k.ne[2]
        chosen = [head for head in range(heads) if head // each == WHERE["group"] % inputs.k.ne[2]]
    which = range(streams) if "stream" not in WHERE else [WHERE["stream"] % streams]
    sample = Sample(list(chosen), np.arange(tokens), list(which))
    found = [head for heads in heads_of(node, values, sample) for head in heads.each]
    length = int((found[0].given.mask > -np.inf).sum(axis=1).max())
    if not lives(tokens, length, layer):
        return
    changed = False
    for head in found:
        out = recomputed(head.given, CHANGE)
        if CHANGE == "kv head":
            other = (head.head // (heads // inputs.k.ne[2]) + 1) % inputs.k.ne[2]
            k, v = (values.rows(side, other, head.stream) for side in (inputs.k, inputs.v))
            out = attention.attend(head.given.q, k, v, head.given.mask, head.given.how).out
        elif CHANGE == "stream":
            if head.stream != streams - 1:
                continue
            place = head.head // (heads // inputs.k.ne[2])
            k, v = (values.rows(side, place, 0) for side in (inputs.k, inputs.v))
            out = attention.attend(head.given.q, k, v, head.given.mask, head.given.how).out
        elif out is None:
            out = edited(head.given.out, head.rows)
        set_rows(node, head.rows, head.head, head.stream, out)
        changed |= not np.allclose(out, head.given.out, rtol=1e-6, atol=0, equal_nan=False)
    if changed:
        hit()


def spoil_write(context: Any, node: Node, layer: int) -> None:  # noqa: PLR0912  (a list)
    name = node.root.name
    if not name.startswith(("cache_k", "cache_v")):
        return
    source, places = node.source(0), node.source(1)
    tokens = source.ne[1]
    if source.ne[0] == 1 or not lives(tokens, layer=layer, side=name[6]):
        return
    values = context.oracle.values
    codec = values.codecs[node.type]
    cells = values.plane(places)[0].view(np.int64)
    given = values.floats(values.plane(source), source.type).astype(np.float32)

    def put(cell: int, raw: np.ndarray) -> None:
        node.ggml.write(node.raw, raw, cell * node.nb[1])

    def stored(rows: np.ndarray) -> np.ndarray:
        if node.type == "f16":
            return rows.astype(np.float16).view(np.uint8).reshape(len(rows), -1)
        return codec.quantize(rows)

    if CHANGE == "scale":
        for cell, raw in zip(cells.tolist(), stored(given * np.float32(1 + DOSE)), strict=True):
            put(cell, raw)
    elif CHANGE == "truncated":
        blocks = given.reshape(len(given), -1, 32)
        step = np.abs(blocks).max(axis=2, keepdims=True) / 127
        coarse = np.trunc(blocks / np.maximum(step, 1e-12)) * step
        for cell, raw in zip(cells.tolist(), stored(coarse.reshape(given.shape)), strict=True):
            put(cell, raw)
    elif CHANGE == "stale":
        row = np.zeros_like(given[:1])
        put(int(cells[-1]), stored(row)[0])
    elif CHANGE == "block":
        row = given[-1:].copy()
        row[:, -32:] = 0
        put(int(cells[-1]), stored(row)[0])
    elif CHANGE == "rare":  # one position in so many
        mirror = context.mirrors.by_layer.get(layer)
        if mirror is None or not mirror.size:
            return
        rare = np.flatnonzero(mirror.where[cells] % int(DOSE) == 1)
        if not rare.size:
            return
        for at in rare.tolist():
            put(int(cells[at]), stored(given[at - 1 : at] if at else 0 * given[:1])[0])
    elif CHANGE == "neighbour":
        for cell, raw in zip(cells.tolist(), np.roll(stored(given), 1, axis=0), strict=True):
            put(cell, raw)
    hit()


def spoil_rope(context: Any, node: Node, layer: int) -> None:
    values = context.oracle.values
    source, places = node.source(0), node.source(1)
    if cache_of(node) is not None or not lives(node.ne[2], layer=layer):
        return
    from pytest_kvquant.engine.child.judge_rope import rope_of

    whole = np.stack([values.rows(node, at) for at in range(node.ne[2])])
    rope = rope_of(node)
    given = values.plane(places)[0].view(np.int32).astype(np.float64)
    if CHANGE == "position":
        step = np.zeros(len(whole))
        step[-1] = DOSE
        whole = turn(whole, rope, step)
    elif CHANGE == "base":
        before = np.stack([values.rows(source, at) for at in range(node.ne[2])])
        whole = turn(before, rope._replace(base=rope.base * (1 + DOSE)), given)
    elif CHANGE == "scale":
        whole = whole * (1 + DOSE)
    write_whole(node, whole)
    hit()


def write_whole(node: Node, values: np.ndarray) -> None:
    """All elements of a contiguous f32 node."""
    node.ggml.write(node.raw, np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(-1))


def spoil_rotation(context: Any, node: Node, layer: int) -> None:
    left = node.source(0)
    turned = node.op == "TURBO_WHT" or (left is not None and left.name.endswith("_rot"))
    if not turned or not lives(State.tokens, layer=layer):
        return
    whole = context.oracle.values.whole(node)
    if CHANGE == "zeros":
        whole[..., -int(DOSE) :] = 0
    else:
        whole *= 1 + DOSE
    write_whole(node, whole)
    hit()


def spoil_norm(context: Any, node: Node, layer: int) -> None:
    if not lives(State.tokens, layer=layer) or node.ne[2] != State.tokens:
        return
    whole = context.oracle.values.whole(node)
    if CHANGE == "scale":
        whole *= 1 + DOSE
    else:
        whole[:, -1] = 0
    write_whole(node, whole)
    hit()


def spoil_outside(context: Any, node: Node, layer: int) -> None:
    if not node.name.startswith("ffn_out") or not lives(State.tokens, layer=layer):
        return
    whole = context.oracle.values.whole(node)
    if CHANGE == "scale":
        whole *= 1 + DOSE
    else:
        whole[:, :, -1] = 0
    write_whole(node, whole)
    hit()


def spoil_mask(context: Any, node: Node, layer: int) -> None:
    mask, keys = node.source(3), node.source(1)
    if mask is None or keys is None or layer not in context.mirrors.by_layer:
        return
    values = context.oracle.values
    rows = values.rows(mask)
    shown = rows > -np.inf
    tokens, streams = node.ne[2], mask.ne[3]
    length = int(shown[:tokens].sum(axis=1).max())
    if streams > 1 or not lives(tokens, length, layer):
        return
    changed = rows.copy()
    for row in range(tokens):
        seen = np.flatnonzero(shown[row])
        if not seen.size:
            continue
        window = context.oracle.facts.window(layer)
        if CHANGE == "oldest":
            changed[row, seen[: int(DOSE)]] = -np.inf
        elif CHANGE == "ahead" and seen[-1] + 1 < rows.shape[1]:
            changed[row, seen[-1] + 1] = 0
        elif CHANGE == "foreign":
            mirror = context.mirrors.by_layer[layer]
            others = np.flatnonzero((mirror.owners[: rows.shape[1]] > 0) & ~shown[row])
            changed[row, others[:1]] = 0
        elif CHANGE == "window" and window and len(seen) == window:
            if DOSE < 0:
                changed[row, seen[0]] = -np.inf
            elif seen[0] > 0:
                changed[row, seen[0] - 1] = 0
    if (changed != rows).any():
        kind = np.float16 if mask.type == "f16" else np.float32
        mask.ggml.write(mask.raw, changed.astype(kind).view(np.uint8).reshape(-1))
        hit()


def spoil_parameters(context: Any, node: Node, layer: int) -> None:
    if not lives(node.ne[2], layer=layer):
        return
    place = 0 if OPERATION == "scale" else 2
    if getattr(context, "spoilt_nodes", None) is None:
        context.spoilt_nodes = {}
    original = context.spoilt_nodes.setdefault(node.address, float(node.floats[place]))
    raw = np.array([original * (1 + DOSE)], np.float32).view(np.int32)
    node.raw.contents.op_params[place] = int(raw[0])
    hit()


def spoil_positions(context: Any, node: Node, layer: int) -> None:
    places = node.source(1)
    key = (places.address, State.decodes)
    if getattr(context, "moved_positions", None) == key:
        return
    given = context.oracle.values.plane(places)[0].view(np.int32).copy()
    if cache_of(node) is None:
        if OPERATION != "positions" or not lives(node.ne[2], layer=layer):
            return
        given[-1] += int(DOSE)
    else:
        moved = np.flatnonzero(given)
        if OPERATION != "shift" or not moved.size:
            return
        if CHANGE == "delta":
            given[moved] += 1
        else:
            given[moved[-1]] = 0
    context.moved_positions = key
    places.ggml.write(places.raw, given.view(np.uint8))
    hit()


State.decodes = 0


def spoil_cells(context: Any, node: Node, layer: int) -> None:
    """Before a write: rows that are in the cache already, or where the new ones go."""
    name = node.root.name
    if not name.startswith(("cache_k", "cache_v")) or not lives(
        State.tokens, layer=layer, side=name[6] if "side" in WHERE or CHANGE == "next" else "k"
    ):
        return
    if CHANGE == "next":
        places = node.source(1)
        key = (places.address, State.decodes)
        if name[6] == "k" and getattr(context, "moved_cells", None) != key:
            context.moved_cells = key
            cells = context.oracle.values.plane(places)[0].view(np.int64).copy()
            places.ggml.write(places.raw, (cells + 1).view(np.uint8))
            hit()
        return
    if name[6] != WHERE.get("side", "k"):
        return
    mirror = context.mirrors.by_layer.get(layer)
    root = node.root
    streams = root.ne[2]
    rows = range(20, 21) if CHANGE in ("row", "lost") else range(16, 28)
    stream = streams - 1 if WHERE.get("after") == "seq_cp" else None
    for at in range(streams) if stream is None else [stream]:
        for row in rows:
            offset = at * root.nb[2] + row * root.nb[1]
            raw = root.ggml.read(root.raw, root.ggml.row_bytes(root.type, root.ne[0]), offset)
            if CHANGE == "lost":
                raw[:] = 0
            else:
                codec = context.oracle.values.codecs[root.type]
                floats = codec.floats(raw[None]) * np.float32(1 + DOSE)
                raw = codec.quantize(floats)[0]
            root.ggml.write(root.raw, raw, offset)
    del mirror
    hit()


AFTER = {
    "attention": ("FLASH_ATTN_EXT", spoil_attention),
    "write": ("SET_ROWS", spoil_write),
    "rope": ("ROPE", spoil_rope),
    "norm": ("RMS_NORM", spoil_norm),
    "outside": ("MUL_MAT", spoil_outside),
}
AHEAD = {
    "mask": ("FLASH_ATTN_EXT", spoil_mask),
    "scale": ("FLASH_ATTN_EXT", spoil_parameters),
    "softcap": ("FLASH_ATTN_EXT", spoil_parameters),
    "positions": ("ROPE", spoil_positions),
    "shift": ("ROPE", spoil_positions),
    "cells": ("SET_ROWS", spoil_cells),
}

honest_init, honest_decode = watch.Watched.__init__, watch.Watched.decode


def init(self: Any, *arguments: Any, **fields: Any) -> None:
    honest_init(self, *arguments, **fields)
    State.unified = bool(fields.get("unified"))
    if (fields["type_k"], fields["type_v"]) != SPOILT_TYPES:
        return

    def after(node: Node, layer: int) -> None:
        if OPERATION == "rotation" and node.op in ("MUL_MAT", "TURBO_WHT"):
            spoil_rotation(self, node, layer)
        elif OPERATION in AFTER and node.op == AFTER[OPERATION][0]:
            AFTER[OPERATION][1](self, node, layer)

    def ahead(node: Node, layer: int) -> None:
        if node.op == AHEAD[OPERATION][0]:
            AHEAD[OPERATION][1](self, node, layer)

    if OPERATION in AHEAD:
        self.tap.spoil_ahead = ahead
    if OPERATION in AFTER or OPERATION in ("rotation", *AHEAD):
        self.tap.spoil = after


def decode(self: Any, tokens: Any, positions: Any, sequences: Any, outputs: Any) -> Any:
    State.tokens, State.decodes = len(tokens), State.decodes + 1
    rows = honest_decode(self, tokens, positions, sequences, outputs)
    low, high = WHERE.get("tokens", (0, 1 << 30))
    spoilt = self.tap.spoil is None and not self.tap.active
    if OPERATION == "unwatched" and spoilt and low <= len(tokens) <= high and len(rows):
        rows *= np.float32(1 + DOSE)
        hit()
    return rows


watch.Watched.__init__ = init  # type: ignore[method-assign]
watch.Watched.decode = decode  # type: ignore[method-assign]


def remembering(name: str) -> None:
    """A step of a scenario is remembered for faults that live after it."""
    honest = getattr(operations.Stage, name)

    def step(self: Any, *arguments: Any) -> Any:
        found = honest(self, *arguments)
        State.after.add(name.lstrip("_"))
        return found

    setattr(operations.Stage, name, step)


for step_name in ("_seq_rm", "_seq_cp", "_seq_add", "_restore", "_restore_file"):
    remembering(step_name)

honest_stage = operations.Stage.__init__


def stage_init(self: Any, *arguments: Any) -> None:
    State.after.clear()
    honest_stage(self, *arguments)


operations.Stage.__init__ = stage_init  # type: ignore[method-assign]
