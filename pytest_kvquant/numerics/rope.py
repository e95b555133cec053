"""Rotary positions in exact arithmetic, with every parameter that ggml's operation has.

Source of the formulas: ``ggml_rope_ext`` and ``rope_yarn`` of ggml; the scaling is that of YaRN
(arXiv 2309.00071). Pure; the worker imports it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pytest_kvquant.numerics.arrays import F64, I64

NEOX, MROPE, IMROPE = 2, 8, 40
"""Bits of ``mode``; NEOX: pairs are half a head apart, else neighbours."""


class Rope(NamedTuple):
    """The parameters of a rope."""

    dims: int
    """Elements of a head that are turned; the rest stays."""
    mode: int = 0
    base: float = 10_000.0
    scale: float = 1.0
    trained: int = 0
    """Context length that the model was trained for, before any scaling."""
    ext: float = 0.0
    attention: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    sections: tuple[int, ...] = (0, 0, 0, 0)
    start: int = 0
    """The first element of a head that is turned."""


def angles(rope: Rope, positions: F64, factors: F64 | None = None) -> tuple[F64, float]:
    """Angles of each pair of elements, and the common factor of the result.

    Args:
        positions: shape ``(tokens,)``; with sections ``(4, tokens)``.
        factors: divisors of the frequencies, shape ``(dims/2,)``; ``None``: ones.

    Returns:
        Shape ``(tokens, dims/2)``.
    """
    pairs = rope.dims // 2
    at = np.arange(pairs)
    frequency = rope.base ** (-2.0 * at / rope.dims)
    places = _places(rope, np.asarray(positions, np.float64), pairs)
    plain = places * frequency / (1.0 if factors is None else factors[:pairs])
    scaled, factor = rope.scale * plain, rope.attention
    if rope.ext == 0:
        return scaled, factor
    ramp = _ramp(rope, at) * rope.ext
    factor *= 1 + 0.1 * math.log(1 / rope.scale)
    return scaled * (1 - ramp) + plain * ramp, factor


def turn(
    values: F64, rope: Rope, positions: F64, factors: F64 | None = None, *, backwards: bool = False
) -> F64:
    """Heads turned by their positions.

    Args:
        values: shape ``(tokens, heads, head size)``.
    """
    theta, factor = angles(rope, positions, factors)
    cos, sin = np.cos(theta)[:, None] * factor, np.sin(theta)[:, None] * factor
    if backwards:
        sin = -sin
    out, half = values.copy(), rope.dims // 2
    start, end = rope.start, rope.start + rope.dims
    if rope.mode & (NEOX | MROPE):
        first, second = slice(start, start + half), slice(start + half, end)
    else:
        first, second = slice(start, end, 2), slice(start + 1, end, 2)
    a, b = values[..., first], values[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
    return out


def _places(rope: Rope, positions: F64, pairs: int) -> F64:
    if not rope.mode & MROPE:
        return positions.reshape(-1)[:, None]
    which = _sections(rope.sections, pairs, interleaved=rope.mode == IMROPE)
    return np.asarray(positions.reshape(4, -1).T[:, which])


def _sections(sections: Sequence[int], pairs: int, *, interleaved: bool) -> I64:
    """Which of the four positions turns each pair."""
    lengths = [int(one) for one in sections[:4]]
    total = sum(lengths) or pairs
    found = []
    for pair in range(pairs):
        sector = pair % total
        if interleaved:
            third = sector % 3
            limits = (lengths[1], lengths[2], lengths[0])
            order = (1, 2, 0)
            kind = (third - 1) % 3
            inside = sector < 3 * limits[kind]
            found.append(order[kind] if inside else 3)
        else:
            edges = np.cumsum(lengths)
            found.append(int(np.searchsorted(edges[:3], sector, side="right")))
    return np.array(found, np.int64)


def _ramp(rope: Rope, at: I64) -> F64:
    def corrected(rotations: float) -> float:
        length = rope.trained / (rotations * 2 * math.pi)
        return rope.dims * math.log(length) / (2 * math.log(rope.base))

    low = max(0.0, math.floor(corrected(rope.beta_fast)))
    high = min(rope.dims - 1.0, math.ceil(corrected(rope.beta_slow)))
    return np.asarray(1 - np.clip((at - low) / max(0.001, high - low), 0, 1))
