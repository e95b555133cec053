"""Stored rows against what the reference quantizer makes of the same rows. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pytest_kvquant.numerics.arrays import F32, U8

TIES = 1e-3
"""Share of bytes that may differ: a value in the middle between two steps goes either way."""

TIES_ELSEWHERE = 1e-2
"""On other backends than the CPU: types that search for a scale compare nearly equal ones
(up to 4e-3 of the bytes, seen for a type that normalizes its rows)."""

FEW = 4
"""Bytes of any write that may differ: one tie, and a scale with it."""

ROW_SHARE = 0.25
"""Share of one row's bytes that may differ, at most: a block whose scale rounds the other way."""


class Written(NamedTuple):
    """How stored rows compare."""

    differing: float
    """Share of bytes that differ."""
    worst: float
    """The same of the row where it is largest."""
    row: int
    """Which row that is."""
    blocks: int
    """Blocks further from what they should be than the type's own rounding explains."""
    error: float
    """NMSE of all rows, both read back."""
    bytes: int
    """How many were compared."""


def compare(
    stored: U8, meant: U8, held: F32, wanted: F32, *, block: int, rounding: float
) -> Written:
    """Compare rows.

    A block that reads back as zeros has a scale of zero, and its codes say nothing: ``iq4_nl``
    leaves there what was in memory before. Such bytes are equal whatever they are.

    Args:
        stored, meant: bytes, shape ``(rows, row bytes)``.
        held, wanted: the same read back, shape ``(rows, elements)``.
        block: elements of a block.
        rounding: NMSE of the type on a normal distribution.
    """
    unequal = (stored != meant) & ~_silent(held, wanted, stored.shape[1], block)
    by_row = unequal.mean(axis=1)
    error = np.square(held.astype(np.float64) - wanted)
    size = np.square(wanted.astype(np.float64))
    part = max(block, 32) if held.shape[1] % max(block, 32) == 0 else held.shape[1]
    errors, sizes = (array.reshape(len(held), -1, part).sum(axis=2) for array in (error, size))
    with np.errstate(invalid="ignore"):
        bad = ~(errors <= np.maximum(sizes, 1e-20) * max(2 * rounding, 1e-9))
    total = float(size.sum())
    return Written(
        float(unequal.mean()),
        float(by_row.max()),
        int(by_row.argmax()),
        int(bad.sum()),
        float(error.sum()) / total if total else float(error.sum()),
        unequal.size,
    )


def _silent(
    held: F32, wanted: F32, row_bytes: int, block: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Bytes of blocks that are zeros on both sides, shape ``(rows, row bytes)``."""
    blocks = held.shape[1] // block
    if blocks * block != held.shape[1] or row_bytes % blocks:
        return np.zeros((len(held), row_bytes), np.bool_)
    zeros = ((held == 0) & (wanted == 0)).reshape(len(held), blocks, block).all(axis=2)
    return np.repeat(zeros, row_bytes // blocks, axis=1)


def is_right(found: Written, *, elsewhere: bool) -> bool:
    """Whether the rows are what the reference quantizer makes, but for ties."""
    share = max(TIES_ELSEWHERE if elsewhere else TIES, FEW / max(found.bytes, 1))
    return found.blocks == 0 and found.differing <= share and found.worst <= ROW_SHARE
