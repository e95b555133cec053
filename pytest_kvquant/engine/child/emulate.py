"""Child side: what a healthy cell would do, emulated on an ``f16/f16`` cache.

One token is decoded, its rows are taken out of the cache, sent through the reference quantizer (in
the basis that the cell's build uses) and put back, and so on. Nothing but the library's own f16
kernels and reference quantizers is at work, so how far the rows of later layers and the logits
stray from those of plain f16 is what the types' rounding explains. (A token sees its own row
unrounded. Four at a time see each other so, and the play strays up to 2.8 times less than healthy
cells do; one at a time 1.2 times.)
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine import census, census_record
from pytest_kvquant.engine.child import probe, probe_kl, probe_run
from pytest_kvquant.engine.child.codec import Codec, Codecs, nmse, rotate
from pytest_kvquant.engine.child.context import Context
from pytest_kvquant.engine.messages.probe import Strayed
from pytest_kvquant.numerics.arrays import F32, I32, U8

Place = tuple[int, int, str]
"""Number of the cache, of the layer within it, and the side."""


class CacheSide(NamedTuple):
    """How a cell stores K or V."""

    type: str
    rotation: int
    width: int
    """Elements of a head."""


def emulate(
    context: Context,
    tokens: I32,
    reference: probe_run.Run,
    codecs: Codecs,
    types: Mapping[str, Mapping[str, int]],
    sides: Mapping[Place, CacheSide],
) -> tuple[list[Strayed], float]:
    """Play a healthy cell.

    Args:
        context: of ``f16/f16``.
        reference: the same tokens as one prompt.
        sides: of every layer.

    Returns:
        How far each layer strays, and the mean KL of the last tokens' logits.
    """
    context.clear()
    logits: list[F32] = []
    for start in range(len(tokens)):
        span = np.full(1, start, np.int32)
        wanted = span >= len(tokens) - probe_kl.LOGIT_ROWS
        logits.append(context.decode(tokens[span], span, np.zeros_like(span), wanted).copy())
        state = census.sequence_state(context.llama, context.pointer)
        for number, cache, place, side in _layers(census.read(state, types)):
            stored = _rows(state, cache, place, side)
            fresh = census.positions(state, cache) == start
            how = sides[number, place, side]
            stored[fresh] = _rounded(stored[fresh], codecs[how.type], how)
        _restore(context, state)
    emulated, plain = census.read(state, types), census.read(reference.state, types)
    propagation = []
    for number, cache, place, side in _layers(emulated):
        other = plain.caches[number]
        at = census.positions(state, cache), census.positions(reference.state, other)
        _, mine, theirs = np.intersect1d(*at, return_indices=True)
        how = sides[number, place, side]
        ours, meant = (
            codecs[how.type].through(_handed_in(rows, codecs[how.type], how))
            for rows in (
                _rows(state, cache, place, side)[mine],
                _rows(reference.state, other, place, side)[theirs],
            )
        )
        propagation.append(Strayed(cache=number, place=place, side=side, nmse=nmse(ours, meant)))
    return propagation, probe_kl.kl(np.concatenate(logits), reference.logits)


def _layers(found: census_record.Census) -> Iterator[tuple[int, census_record.Cache, int, str]]:
    for number, cache in enumerate(found.caches):
        for place, layer in enumerate(cache.layers):
            for side in probe.SIDES:
                if side == "K" or layer.v_type is not None:
                    yield number, cache, place, side


def _rows(state: U8, cache: census_record.Cache, place: int, side: str) -> U8:
    read = census.key_rows if side == "K" else census.value_rows
    return read(state, cache, cache.layers[place])


def _handed_in(stored: U8, codec: Codec, how: CacheSide) -> F32:
    """f16 rows as the cell's build hands them to the quantizer: heads padded and rotated."""
    source = np.ascontiguousarray(stored).view(np.float16).astype(np.float32)
    wide = -(-how.width // codec.block) * codec.block
    elements = source.shape[1] // how.width * wide
    return rotate(probe_run.padded(source, how.width, elements), how.rotation)


def _rounded(stored: U8, codec: Codec, how: CacheSide) -> U8:
    """f16 rows sent through the quantizer and brought back to the coordinates of f16."""
    back = codec.through(_handed_in(stored, codec, how))
    heads = stored.shape[1] // 2 // how.width
    wide = back.shape[1] // heads
    if (matrix := codec.basis(wide).matrix) is not None:
        back = (back.reshape(-1, wide) @ matrix.T).reshape(back.shape)
    plain = rotate(back, how.rotation).reshape(len(back), heads, wide)[:, :, : how.width]
    return plain.reshape(len(back), -1).astype(np.float16).view(np.uint8)


def _restore(context: Context, state: U8) -> None:
    context.clear()
    pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    context.llama.llama_state_seq_set_data(context.pointer, pointer, len(state), 0)
