"""Quantizers in NumPy, healthy and broken: what the quantizer test is tried on without a build."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Quantizer = Callable[[F32], F32]
"""Rows of shape ``(rows, elements)`` to what comes back of them."""

WIDTHS = {"q8_0": (32, 34), "q5_0": (32, 22), "q4_0": (32, 18), "turbo3": (128, 50)}
"""Values and bytes of a block."""


def q8_0(values: F32, rounded: Callable[[F32], F32] | None = None) -> F32:
    """ggml's ``quantize_row_q8_0_ref`` and back: d = max|x| / 127, stored as f16."""
    blocks = values.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    codes = (rounded or _away)(blocks * inverse)
    return (codes * _half(scale)).reshape(values.shape)


def q4_0(values: F32, zero: float = 8, levels: int = 8) -> F32:
    """ggml's ``quantize_row_q4_0_ref`` and back: d = the largest value / −8, codes 0 to 15."""
    return _signed(values, zero, levels)


def q5_0(values: F32) -> F32:
    """ggml's ``quantize_row_q5_0_ref`` and back: as q4_0 with 32 codes."""
    return _signed(values, 16, 16)


def _signed(values: F32, zero: float, levels: int) -> F32:
    blocks = values.reshape(-1, 32)
    at = np.abs(blocks).argmax(1)
    scale = blocks[np.arange(len(blocks)), at][:, None] / np.float32(-levels)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    codes = np.clip(np.trunc(blocks * inverse + np.float32(levels + 0.5)), 0, 2 * levels - 1)
    return ((codes - np.float32(zero)) * _half(scale)).reshape(values.shape).astype(np.float32)


LEVELS = np.array([0.2451, 0.7560, 1.3439, 2.1519], np.float32)
"""Lloyd–Max levels of a normal source, 3 bits (Max 1960)."""


def turbo3(values: F32, *, corrected: bool = True) -> F32:
    """A block's norm as f16 and 3 bits for each value of its Hadamard rotation; comes back rotated.

    Args:
        corrected: whether the norm is that of the values handed in, not of their levels.
    """
    blocks = values.reshape(-1, 128)
    turned = (blocks * signs()) @ hadamard(128)
    norm = np.linalg.norm(blocks, axis=1, keepdims=True)
    unit = np.divide(turned, norm, out=np.zeros_like(turned), where=norm > 0) * np.sqrt(128)
    edges = (LEVELS[1:] + LEVELS[:-1]) / 2
    back = np.copysign(LEVELS[np.searchsorted(edges, np.abs(unit))], unit)
    size = np.linalg.norm(back, axis=1, keepdims=True) if corrected else np.sqrt(np.float32(128))
    return (back * _half(norm / size)).reshape(values.shape).astype(np.float32)


def hadamard(size: int) -> F32:
    """Sylvester's matrix, orthonormal, shape ``(size, size)``."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.float32(np.sqrt(size))


def signs() -> F32:
    """Fixed signs before the Hadamard rotation."""
    random = np.random.Generator(np.random.Philox(42))
    return random.choice(np.array([-1, 1], np.float32), 128)


def _half(values: F32) -> F32:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def _away(values: F32) -> F32:
    """C's ``roundf``: halves away from zero."""
    return np.copysign(np.floor(np.abs(values) + np.float32(0.5)), values)
