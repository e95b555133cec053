"""Runs in the real worker (``KVQUANT_WORKER_HOOK``) and plants the fault named in its environment.

Most faults edit the cache itself. A batch that starts a chunk is decoded in two pieces: what comes
before the first scored token, then the rest. In between, the state of each sequence is taken out
(``llama_state_seq_get_data``), its rows of K and V are changed, and it is put back: the scored
tokens then attend to a cache that a broken kernel could have written. Other faults change logits,
the types that a context is made with, or the weights of its model. Contexts of ``f16/f16`` stay as
they are, unless the fault is one of the reference.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from pytest_kvquant.engine import census
from pytest_kvquant.engine.child.context import Context, LoadedModel

FAULT = json.loads(os.environ["KVQUANT_FAULT"])
NAME: str = FAULT["name"]
DOSE: float = FAULT["dose"]
HEADS: int = FAULT["heads"]
"""KV heads of the model."""

Rows = Any
Edit = Callable[[int, Rows, Rows], None]
"""Layer, K and V of shape ``(cells, heads, head dimension)``, float32, changed in place."""


class State:
    """What an edit may need besides the rows."""

    rng = np.random.default_rng(20_26)
    chunk = 0
    sequence = 0
    positions: Any = None
    before: dict[tuple[int, int], tuple[Rows, Rows]] = {}  # noqa: RUF012  (one process, one fault)


def noise(rows: Rows, share: float) -> Rows:
    """Normal noise of ``share`` times the rows' own root mean square."""
    spread = share * float(np.sqrt((rows**2).mean()))
    return State.rng.normal(0, spread, rows.shape).astype(np.float32)


def hadamard(rows: Rows) -> Rows:
    """The orthonormal Walsh-Hadamard transform of each head's values."""
    values = rows.copy()
    width = rows.shape[-1]
    step = 1
    while step < width:
        pairs = values.reshape(*rows.shape[:-1], -1, 2, step)
        pairs[:] = np.stack(
            (pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]), axis=-2
        )
        step *= 2
    return values / np.sqrt(width)


def k_scale(layer: int, k: Rows, v: Rows) -> None:
    k *= 1 + DOSE


def v_scale(layer: int, k: Rows, v: Rows) -> None:
    v *= 1 + DOSE


def swapped(layer: int, k: Rows, v: Rows) -> None:
    if layer < DOSE:
        k[:], v[:] = v.copy(), k.copy()


def block_off_by_one(layer: int, k: Rows, v: Rows) -> None:
    hit = State.rng.random(len(v)) < DOSE
    blocks = v[hit].reshape(hit.sum(), v[0].size // 32, 32)
    v[hit] = np.roll(blocks, 1, axis=1).reshape(v[hit].shape)


def last_block_dropped(layer: int, k: Rows, v: Rows) -> None:
    if layer < DOSE:
        v[:, -1, -32:] = 0


def half_of_v_zeroed(layer: int, k: Rows, v: Rows) -> None:
    if layer < DOSE:
        v[:, :, v.shape[2] // 2 :] = 0


def rotation_missing(layer: int, k: Rows, v: Rows) -> None:
    if layer < DOSE:
        v[:] = hadamard(v)


def head_sign_flipped(layer: int, k: Rows, v: Rows) -> None:
    if layer < DOSE:
        v[:, 0] *= -1


def heads_exchanged(layer: int, k: Rows, v: Rows) -> None:
    if layer < DOSE:
        k[:], v[:] = k[:, ::-1].copy(), v[:, ::-1].copy()


def layer_zeroed(layer: int, k: Rows, v: Rows) -> None:
    if layer < DOSE:
        k[:], v[:] = 0, 0


def coarse(layer: int, k: Rows, v: Rows) -> None:
    """Rounded towards zero to a grid of ``DOSE`` steps per block maximum."""
    for rows in (k, v):
        blocks = rows.reshape(len(rows), -1, 32)
        step = np.abs(blocks).max(axis=2, keepdims=True) / DOSE
        step[step == 0] = 1
        rows[:] = (np.trunc(blocks / step) * step).reshape(rows.shape)


def wrong_position(layer: int, k: Rows, v: Rows) -> None:
    """Beyond a depth of 256 − ``DOSE`` tokens, each K stands where its neighbour's should."""
    deep = State.positions >= len(k) - DOSE
    k[deep] = np.roll(k[deep], 1, axis=0)


def stale_rows(layer: int, k: Rows, v: Rows) -> None:
    """Of the last ``DOSE`` tokens, the rows of the chunk before were never overwritten."""
    key = (State.sequence, layer)
    fresh = (k.copy(), v.copy())
    if key in State.before:
        old_k, old_v = State.before[key]
        k[-int(DOSE) :], v[-int(DOSE) :] = old_k[-int(DOSE) :], old_v[-int(DOSE) :]
    State.before[key] = fresh


def first_tokens_lost(layer: int, k: Rows, v: Rows) -> None:
    k[: int(DOSE)], v[: int(DOSE)] = 0, 0


def clipped(layer: int, k: Rows, v: Rows) -> None:
    """K saturates at ``DOSE`` of each row's largest value."""
    most = np.abs(k).max(axis=(1, 2), keepdims=True) / DOSE
    np.clip(k, -most, most, out=k)


def noisy(layer: int, k: Rows, v: Rows) -> None:
    k += noise(k, DOSE)
    v += noise(v, DOSE)


def one_nan(layer: int, k: Rows, v: Rows) -> None:
    if layer == 0 and State.chunk == DOSE:
        v[0, 0, 0] = np.nan


def drift(layer: int, k: Rows, v: Rows) -> None:
    """Noise that grows with each chunk: something is not reset in between."""
    grown = DOSE * State.chunk
    k += noise(k, grown)
    v += noise(v, grown)


def later_sequences(layer: int, k: Rows, v: Rows) -> None:
    if State.sequence > 0:
        v += noise(v, DOSE)


EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        k_scale, v_scale, swapped, block_off_by_one, last_block_dropped, half_of_v_zeroed,
        rotation_missing, head_sign_flipped, heads_exchanged, layer_zeroed, coarse,
        wrong_position, stale_rows, first_tokens_lost, clipped, noisy, one_nan, drift,
        later_sequences,
    )
} | {"nothing": lambda layer, k, v: None}  # fmt: skip


def logits_scaled(logits: Rows) -> None:
    logits *= 1 + DOSE


def tail_only(logits: Rows) -> None:
    """One row in two hundred is garbled; all others are right to the last bit."""
    hit = np.arange(len(logits)) % 200 == 99
    logits[hit] += State.rng.normal(0, DOSE, logits[hit].shape).astype(np.float32)


def vocabulary_end_lost(logits: Rows) -> None:
    first = int(logits.shape[1] * (1 - DOSE))
    logits[:, first:] = 0


LOGITS: dict[str, Callable[[Rows], None]] = {
    change.__name__: change for change in (logits_scaled, tail_only, vocabulary_end_lost)
}

TYPES = {
    "silent_q4_0": "q4_0",
    "silent_q5_1": "q5_1",
    "silent_f16": "f16",
    "reference_quantized": "q8_0",
}


def apply(context: Any, sequences: Any, edit: Edit) -> None:
    """Take out, change and put back the state of each sequence."""
    library, llama = context.model.library, context.llama
    for sequence in np.unique(sequences).tolist():
        State.sequence = sequence
        state = census.sequence_state(llama, context.pointer, sequence)
        cache = census.read(state, library.types).caches[0]
        State.positions = census.positions(state, cache)
        for number, layer in enumerate(cache.layers):
            assert layer.v_type is not None
            stored = (census.key_rows(state, cache, layer), census.value_rows(state, cache, layer))
            kinds = [GGMLQuantizationType[name.upper()] for name in (layer.k_type, layer.v_type)]
            before = [
                dequantize(rows, kind).astype(np.float32)
                for rows, kind in zip(stored, kinds, strict=True)
            ]
            after = [rows.reshape(len(rows), HEADS, -1).copy() for rows in before]
            edit(number, *after)
            for rows, old, new, kind in zip(stored, before, after, kinds, strict=True):
                changed = (new.reshape(old.shape) != old).any(axis=1)
                if changed.any():
                    packed = quantize(new.reshape(old.shape)[changed], kind)
                    rows[changed] = packed.view(np.uint8).reshape(packed.shape[0], -1)
        pointer = state.ctypes.data_as(llama.llama_state_seq_get_data.argtypes[1])
        assert llama.llama_state_seq_set_data(context.pointer, pointer, len(state), sequence)
        State.chunk += 1


honest_init = Context.__init__
honest_decode = Context.decode
SPOILT: dict[int, LoadedModel] = {}
"""The model with changed weights beside each that was loaded."""


def spoilt(model: LoadedModel) -> LoadedModel:
    """The model of ``FAULT["weights"]`` in place of this one; loaded once."""
    if id(model) not in SPOILT:
        SPOILT[id(model)] = LoadedModel(model.library, FAULT["weights"], gpu_layers=0)
    return SPOILT[id(model)]


def init(self: Any, model: Any, **fields: Any) -> None:
    is_reference = (fields["type_k"], fields["type_v"]) == ("f16", "f16")
    self.faulty = is_reference == (NAME == "reference_quantized")
    if self.faulty and "weights" in FAULT:
        model = spoilt(model)
    if self.faulty and NAME in TYPES:
        fields["type_k"] = fields["type_v"] = TYPES[NAME]
    honest_init(self, model, **fields)


def decode(self: Any, tokens: Any, positions: Any, sequences: Any, outputs: Any) -> Any:
    outputs = np.asarray(outputs).astype(bool)
    starts = [positions[sequences == one].min() for one in np.unique(sequences)]
    whole = len(tokens) > 1 and not any(starts) and outputs.any()
    if self.faulty and NAME in EDITS and whole:
        cut = int(positions[outputs].min())
        early = positions < cut
        if cut:
            none = np.zeros(int(early.sum()), bool)
            honest_decode(self, tokens[early], positions[early], sequences[early], none)
            apply(self, sequences, EDITS[NAME])
            late = ~early
            tokens, positions, sequences, outputs = (
                values[late] for values in (tokens, positions, sequences, outputs)
            )
    logits = honest_decode(self, tokens, positions, sequences, outputs)
    if self.faulty and len(logits) and (change := LOGITS.get(NAME)):
        change(logits)
    if self.faulty and len(logits) and NAME == "next_token_known":
        # the gain goes to what really comes next: perplexity improves, as in a broken model it may
        rows = np.flatnonzero(outputs)
        known = rows + 1 < len(tokens)
        logits[np.flatnonzero(known), tokens[rows[known] + 1]] += DOSE
    if self.faulty and NAME == "decode_path" and len(tokens) == 1 and len(logits):
        logits += State.rng.normal(0, DOSE, logits.shape).astype(np.float32)
    return logits


Context.__init__ = init  # type: ignore[method-assign]
Context.decode = decode  # type: ignore[method-assign]
