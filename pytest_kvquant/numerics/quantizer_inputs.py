"""Seeded rows that show what a quantizer does: the inputs of its test against arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pytest_kvquant.numerics.arrays import F32

VALUES = 1 << 20
"""Normally distributed values, at most: enough for a fault of one block in a thousand."""

BLOCKS = 8192
"""Normally distributed blocks, at most."""

FEW = 1 << 17
"""Values of each further kind of input, at most."""

BLOCKS_PER_ROW = 4
"""A head of 128 in blocks of 32: the last block of a row is seen apart from the others."""

EXPONENTS = (-8, -3, 3, 8)
"""Powers of two by which inputs are scaled."""

OUTLIER = 100.0
"""Standard deviations of the one large value in a block of the outlier rows."""

LARGEST = 65504.0
"""The largest f16: what a cache row can be asked to hold."""

TINY = (1e-5, 1e-7)
"""Sizes at which a scale that is stored as f16 is subnormal, and where it is zero."""


def make(block: int, seed: int = 0) -> dict[str, F32]:
    """Rows to send through a quantizer, by what they are for.

    Args:
        block: values that share a scale.
        seed: of the random values.

    Returns:
        Arrays of shape ``(rows, 4 * block)``: ``gaussian`` (standard normal), ``again`` (its first
        rows in reverse order), ``negated``, ``laplace`` (of variance 1), ``scaled_<n>`` (times
        2^n), ``outlier``, ``zero``, ``tiny_<size>``, ``large_one`` (one value of ±65504 a block)
        and ``large_all`` (nothing else).
    """
    width = BLOCKS_PER_ROW * block
    rows = max(8, min(BLOCKS * block, VALUES) // width)
    few = max(8, min(rows, FEW // width))
    random = np.random.Generator(np.random.Philox(seed))
    gaussian = random.standard_normal((rows, width), np.float32)
    laplace = random.laplace(scale=np.sqrt(0.5), size=(few, width)).astype(np.float32)
    first = gaussian[:few]
    made = {
        "gaussian": gaussian,
        "again": first[::-1],
        "negated": -first,
        "laplace": laplace,
        "outlier": _with_one(first, block, OUTLIER),
        "zero": np.zeros((8, width), np.float32),
        "large_one": _with_one(first[:8], block, LARGEST),
        "large_all": np.copysign(np.float32(LARGEST), first[:8]),
    }
    made |= {f"scaled_{n}": first * np.float32(2.0**n) for n in EXPONENTS}
    made |= {f"tiny_{size:g}": first[:8] * np.float32(size) for size in TINY}
    return {name: np.ascontiguousarray(values, np.float32) for name, values in made.items()}


def _with_one(values: F32, block: int, size: float) -> F32:
    """One value of each block replaced, at places that move from block to block."""
    blocks = values.reshape(-1, block).copy()
    at = np.arange(len(blocks))
    blocks[at, (7 * at) % block] = np.copysign(np.float32(size), blocks[at, (7 * at) % block])
    return blocks.reshape(values.shape)


def batches(inputs: dict[str, F32], most: int) -> Iterator[tuple[str, F32]]:
    """The same rows in pieces of at most ``most`` values, in order: messages of a bounded size."""
    for name, values in inputs.items():
        step = max(1, most // values.shape[1])
        for start in range(0, len(values), step):
            yield name, values[start : start + step]
