"""CUDA's attention kernel of one and two query tokens, step by step in NumPy.

A transcription of ``flash_attn_ext_vec`` of ggml-cuda (fattn-vec.cuh, fattn-common.cuh) as NVIDIA's
cards run it: integer products of four levels a thread, sums in f32. Blocks are quantized as ggml's
reference quantizers do. Written from the kernel, not from this package.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

F32 = np.float32


class Blocks(NamedTuple):
    """Rows of a type with blocks of 32: levels, scales and least values in f16."""

    levels: np.ndarray
    d: np.ndarray
    m: np.ndarray
    zero: int
    """Level that stands for 0; ``m`` is used where it is 0."""

    def floats(self) -> np.ndarray:
        """As ``to_float`` reads them, in f32."""
        d, m = self.d.astype(F32)[..., None], self.m.astype(F32)[..., None]
        rows = (self.levels - self.zero).astype(F32) * d + m
        return rows.reshape(len(rows), -1)


def quantize(rows: np.ndarray, kind: str) -> Blocks:
    """``quantize_row_q4_0_ref`` and its kin."""
    x = rows.astype(F32).reshape(len(rows), -1, 32)
    if kind == "q8_0":
        d = np.abs(x).max(axis=2) / F32(127)
        levels = np.rint(x / np.where(d > 0, d, 1)[..., None]).astype(int)
        return Blocks(levels, d.astype(np.float16), np.zeros_like(d, np.float16), 0)
    top = 15 if kind.startswith("q4") else 31
    if kind.endswith("_1"):
        low = x.min(axis=2)
        d = (x.max(axis=2) - low) / F32(top)
        inverse = np.where(d > 0, 1 / np.where(d > 0, d, 1), 0)[..., None].astype(F32)
        levels = np.minimum(top, ((x - low[..., None]) * inverse + F32(0.5)).astype(int))
        return Blocks(levels, d.astype(np.float16), low.astype(np.float16), 0)
    half = (top + 1) // 2
    at = np.abs(x).argmax(axis=2)
    largest = np.take_along_axis(x, at[..., None], axis=2)[..., 0]
    d = largest / F32(-half)
    inverse = np.where(d != 0, 1 / np.where(d != 0, d, 1), 0)[..., None].astype(F32)
    levels = np.minimum(top, (x * inverse + F32(half + 0.5)).astype(int))
    return Blocks(levels, d.astype(np.float16), np.zeros_like(d, np.float16), half)


def attend(q: np.ndarray, k: Blocks, v: np.ndarray, scale: float, kind: str) -> np.ndarray:
    """One query row over all cells."""
    q8, q_d, q_sum = _to_q8_1(q, scale)
    scores = np.array([_dot(q8, q_d, q_sum, k, cell, kind) for cell in range(len(v))], F32)
    weights = np.exp(scores - scores.max()).astype(F32)
    total, out = F32(0), np.zeros(v.shape[1], F32)
    for weight, row in zip(weights, v.astype(F32), strict=True):
        total += weight
        out += weight * row
    return out / total


def _to_q8_1(q: np.ndarray, scale: float):
    """``quantize_q8_1_to_shared<float2>``: the sum is that of the values, not of the levels."""
    levels, scales, sums = [], [], []
    for block in (q.astype(F32) * F32(scale)).reshape(-1, 32):
        d = np.abs(block).max() / F32(127)
        quotient = block / d if d else np.zeros_like(block)
        levels.append([int(np.trunc(x + np.copysign(0.5, x))) for x in quotient.astype(float)])
        scales.append(d)
        sums.append(block.sum(dtype=F32))
    return np.array(levels), np.array(scales, F32), np.array(sums, F32)


def _dot(q8, q_d, q_sum, k: Blocks, cell: int, kind: str):
    """``vec_dot_fattn_vec_KQ_*``: a thread has four levels, eight threads share a block."""
    total = F32(0)
    for block in range(len(q_d)):
        d, m = F32(k.d[cell, block]), F32(k.m[cell, block])
        for start in range(0, 32, 4):
            four = slice(start, start + 4)
            sumi = int(k.levels[cell, block, four] @ q8[block, four])
            if kind == "q8_0":
                total += d * q_d[block] * F32(sumi)
            elif kind.endswith("_1"):
                total += d * q_d[block] * F32(sumi) + m * q_sum[block] / F32(8)
            else:
                total += d * (F32(sumi) * q_d[block] - F32(k.zero // 8) * q_sum[block])
    return total
