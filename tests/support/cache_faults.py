"""Runs in the real worker (``KVQUANT_WORKER_HOOK``) and plants one fault in its cache.

``KVQUANT_CACHE_FAULT`` says which: a kernel (``quantizer``: rows are wrong once they are written;
``attention``: they are wrong only while they are read), a side, a path, a layer, an edit. What the
cache holds goes through ``llama_state_seq_get_data``, an edit of the rows, and
``llama_state_seq_set_data``. Contexts of ``f16/f16`` are left alone.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_kvquant.engine import census
from pytest_kvquant.engine.child.codec import Codec, rotate
from pytest_kvquant.engine.child.context import Context

FAULT: dict[str, Any] = json.loads(os.environ["KVQUANT_CACHE_FAULT"])
Rows = np.ndarray[Any, np.dtype[np.uint8]]


class Place:
    """What an edit may need to know of the rows."""

    def __init__(self, codec: Codec, heads: int, like: Codec | None) -> None:
        self.codec, self.heads, self.like = codec, heads, like


def scale(rows: Rows, place: Place) -> None:
    values = place.codec.floats(rows)
    rows[:] = place.codec.quantize(values * np.float32(FAULT["value"]))


def sign(rows: Rows, place: Place) -> None:
    values = place.codec.floats(rows)
    block = slice(FAULT["value"] * place.codec.block, (FAULT["value"] + 1) * place.codec.block)
    values[:, block] *= -1
    rows[:] = place.codec.quantize(values)


def zero(rows: Rows, place: Place) -> None:
    rows[:] = place.codec.quantize(np.zeros_like(place.codec.floats(rows)))


def shifted(rows: Rows, place: Place) -> None:
    rows[:] = np.roll(rows, place.codec.bytes, axis=1)


def exchanged(rows: Rows, place: Place) -> None:
    rows[:] = np.roll(rows, rows.shape[1] // place.heads, axis=1)


def later_row(rows: Rows, place: Place) -> None:
    rows[:] = np.roll(rows, -1, axis=0)


def second_blocks(rows: Rows, place: Place) -> None:
    values = place.codec.floats(rows).reshape(len(rows), -1, place.codec.block)
    values[:, ::2] = values[:, ::2, ::-1].copy()
    rows[:] = place.codec.quantize(values.reshape(len(rows), -1))


def head_mixed(rows: Rows, place: Place) -> None:
    values = place.codec.floats(rows).reshape(len(rows), place.heads, -1)
    values[:, 1] = values[:, 1, ::-1].copy()
    rows[:] = place.codec.quantize(values.reshape(len(rows), -1))


def other_type(rows: Rows, place: Place) -> None:
    assert place.like is not None
    rows[:] = place.like.quantize(place.codec.floats(rows))


def unrotated(rows: Rows, place: Place) -> None:
    rows[:] = place.codec.quantize(rotate(place.codec.floats(rows), FAULT["value"]))


def half(rows: Rows, place: Place) -> None:
    values = place.codec.floats(rows)
    values[:, values.shape[1] // 2 :] = 0
    rows[:] = place.codec.quantize(values)


EDITS: dict[str, Callable[[Rows, Place], None]] = {
    edit.__name__: edit
    for edit in (
        scale, sign, zero, shifted, exchanged, later_row, second_blocks, head_mixed, other_type,
        unrotated, half,
    )
}  # fmt: skip

plain_decode = Context.decode


def state_of(context: Context) -> Rows:
    return census.sequence_state(context.llama, context.pointer)


def restore(context: Context, state: Rows) -> None:
    context.clear()
    pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    context.llama.llama_state_seq_set_data(context.pointer, pointer, len(state), 0)


def spoil(context: Context, state: Rows, chosen: Callable[[Any], Any]) -> None:
    """Edit the rows at the chosen positions, in the state."""
    library = context.model.library
    cache = census.read(state, library.types).caches[0]
    at = chosen(census.positions(state, cache))
    for side in FAULT["side"]:
        for number in FAULT["layers"]:
            layer = cache.layers[number]
            name = layer.k_type if side == "K" else layer.v_type
            read = census.key_rows if side == "K" else census.value_rows
            rows = read(state, cache, layer)
            part = rows[at].copy()
            like = Codec(library, FAULT["value"]) if FAULT["edit"] == "other_type" else None
            if len(part):
                EDITS[FAULT["edit"]](part, Place(Codec(library, name), FAULT["heads"], like))
            rows[at] = part


def written_wrong(context: Context, tokens: Any, positions: Any, *rest: Any) -> Any:
    logits = plain_decode(context, tokens, positions, *rest).copy()
    state = state_of(context)
    spoil(context, state, lambda at: np.isin(at, positions) & (at >= FAULT["from"]))
    restore(context, state)
    return logits


def read_wrong(context: Context, tokens: Any, positions: Any, *rest: Any) -> Any:
    """The batch in two halves, because a batch reads what it writes; the second reads wrongly."""
    parts = [slice(0, len(tokens))]
    logits = []
    if len(tokens) > 1:
        parts = [slice(0, len(tokens) // 2), slice(len(tokens) // 2, len(tokens))]
        logits.append(_piece(context, parts.pop(0), tokens, positions, *rest))
    before = state_of(context) if positions[0] or len(tokens) > 1 else None
    if before is not None:
        wrong = before.copy()
        spoil(context, wrong, lambda at: at >= 0)
        restore(context, wrong)
    logits.append(_piece(context, parts[0], tokens, positions, *rest))
    if before is not None:
        after, types = state_of(context), context.model.library.types
        old, new = (census.read(one, types).caches[0] for one in (before, after))
        for was, now in zip(old.layers, new.layers, strict=True):
            for read in (census.key_rows, census.value_rows):
                read(after, new, now)[: old.cells] = read(before, old, was)
        restore(context, after)
    return np.concatenate(logits)


def _piece(context: Context, part: slice, *arrays: Any) -> Any:
    return plain_decode(context, *(array[part] for array in arrays)).copy()


def decode(context: Context, tokens: Any, positions: Any, *rest: Any) -> Any:
    path = "prefill" if len(tokens) > 1 else "decode"
    if not context.faulty or FAULT["path"] not in (path, "both"):
        return plain_decode(context, tokens, positions, *rest)
    kernel = written_wrong if FAULT["kernel"] == "quantizer" else read_wrong
    return kernel(context, tokens, positions, *rest)


plain_init = Context.__init__


def init(context: Context, model: Any, *, type_k: str, type_v: str, **rest: Any) -> None:
    plain_init(context, model, type_k=type_k, type_v=type_v, **rest)
    context.faulty = (type_k, type_v) != ("f16", "f16")


Context.__init__ = init
Context.decode = decode
