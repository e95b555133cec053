"""Queries as kernels round them before they meet quantized keys; pure, the worker imports it too.

A kernel that multiplies integers rounds the query to blocks of 32 levels first. Where the key's
levels start at a number that is not zero, a sum over the query stands beside the levels, rounded in
another way than they are: one more element per block on either side brings that difference, so that
``q @ k.T`` of what comes back is what the kernel computes.
"""

from __future__ import annotations

import numpy as np

from pytest_kvquant.numerics.arrays import F32, F64

BLOCK = 32
"""Elements of a block of q8_0 and q8_1."""

ON_CUDA = frozenset({"q4_0", "q4_1", "q5_0", "q5_1", "q8_0"})
"""Types of K for which CUDA's vector kernels (and HIP's) multiply integers."""


def rounded_to_eights(values: F64, *, scale_in_half: bool, levels: F64 | None = None) -> F64:
    """Blocks of 32 rounded to 8 bits, as q8_0 and q8_1 activations are.

    Args:
        values: shape ``(…, rows, elements)``; rows of no multiple of 32 come back as they are.
        scale_in_half: whether the block's scale is kept in f16 (CPU) or f32.
        levels: what elements become where that is known, like ``values``; NaN elsewhere.
    """
    if values.shape[-1] % BLOCK:
        return values
    taken, step = _in_eights(values, levels)
    kept = step.astype(np.float16).astype(np.float32) if scale_in_half else step
    return np.asarray((taken * kept[..., None]).reshape(values.shape), np.float64)


def _in_eights(values: F64, levels: F64 | None) -> tuple[F32, F32]:
    """8-bit levels, shape ``(…, rows, blocks, 32)``, and the step of each block."""
    blocks = _blocks(values).astype(np.float32)
    step = np.abs(blocks).max(axis=-1) / np.float32(127)
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
    return _known(np.rint(blocks * inverse[..., None]), levels), step


def _blocks(rows: F64) -> F64:
    return rows.reshape(*rows.shape[:-1], -1, BLOCK)


def _known(levels: F32, known: F64 | None) -> F32:
    if known is None:
        return levels
    at = known.reshape(levels.shape)
    return np.asarray(np.where(np.isnan(at), levels, at), np.float32)


def with_offsets(q: F64, k: F64, levels: F64 | None = None) -> tuple[F64, F64]:
    """Queries rounded as q8_1 is, and keys, so that their products are those of types that store
    the smallest value of a block beside its scale (q4_1, q5_1).

    q8_1 keeps the sum of each block in f16, which meets the block's smallest value: one more
    element per block on either side brings that sum's rounding.

    Args:
        levels: as of :func:`rounded_to_eights`.
    """
    if q.shape[-1] % BLOCK:
        return q, k
    taken, step = _in_eights(q, levels)
    kept = step.astype(np.float16).astype(np.float32)
    total = taken.sum(axis=-1)
    missing = (total * step).astype(np.float16).astype(np.float64) - kept * total
    rounded = np.asarray((taken * kept[..., None]).reshape(q.shape), np.float64)
    return _beside(rounded, missing), _beside(k, _blocks(k).min(axis=-1))


def as_vector_kernels(
    q: F64, k: F64, k_type: str, scale: float, levels: F64 | None = None
) -> tuple[F64, F64]:
    """Queries and keys as CUDA's vector kernels of one and two query tokens take them.

    Source: ``quantize_q8_1_to_shared`` and ``vec_dot_fattn_vec_KQ_*`` of ggml-cuda
    (fattn-common.cuh). The query is scaled in f32, its levels are rounded half away from zero with
    a scale in f32, and the sum of the scaled query, **not** of its levels, meets the value of the
    key's level zero. With q4_0 that is the block's largest: what levels miss counts eightfold.

    Args:
        q: shape ``(…, rows, elements)``.
        k: shape ``(…, cells, elements)``, as the type's ``to_float`` reads them.
        scale: of the scores, by which the kernel multiplies the query.
        levels: as of :func:`rounded_to_eights`.

    Returns:
        Both with one more element per block, but for types without such a value; unchanged where
        rows are no multiple of 32.
    """
    if q.shape[-1] % BLOCK or not scale:
        return q, k
    factor = np.float32(scale)
    blocks = _blocks(q).astype(np.float32) * factor
    step = np.abs(blocks).max(axis=-1) / np.float32(127)
    nearest = _half_away(
        np.divide(blocks, step[..., None], out=np.zeros_like(blocks), where=step[..., None] > 0)
    )
    rounded = np.asarray(_known(nearest, levels), np.float64) * step[..., None]
    missing = (blocks.sum(axis=-1, dtype=np.float32) - rounded.sum(axis=-1)) / factor
    taken = (rounded / factor).reshape(q.shape)
    zero = _level_zero(_blocks(k), k_type)
    if zero is None:
        return taken, k
    return _beside(taken, missing), _beside(k, zero)


def _beside(rows: F64, more: F64) -> F64:
    """Rows with more elements behind them."""
    return np.concatenate((rows, more), axis=-1)


def _half_away(values: F32) -> F32:
    """As C's ``roundf``."""
    return np.asarray(np.sign(values) * np.floor(np.abs(values) + np.float32(0.5)), np.float32)


def _level_zero(blocks: F64, k_type: str) -> F64 | None:
    """What level zero of each block is worth; the reference quantizers give it to an element.

    Of q4_0 and q5_0 to the one of largest magnitude, of q4_1 and q5_1 to the smallest.
    """
    if k_type.endswith("_1"):
        return np.asarray(blocks.min(axis=-1))
    if k_type in ("q4_0", "q5_0"):
        at = np.abs(blocks).argmax(axis=-1)
        return np.asarray(np.take_along_axis(blocks, at[..., None], axis=-1)[..., 0])
    return None
