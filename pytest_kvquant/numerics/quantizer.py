"""What a quantizer gives back, against arithmetic: figures of its reference implementation.

A kernel is compared with the library's own reference quantizer, so a fault in that one is in the
comparison too. Here it is held against what no quantizer can beat (Shannon's bound on the
distortion of a normal source, D >= 2^(-2b), 6.02 dB a bit; Cover and Thomas, *Elements of
Information Theory*, 13.3), against what a scalar quantizer of so many levels reaches (the tables of
Max 1960 and Lloyd 1982), and against symmetries that hold whatever the type: position in the
block, block in the row, sign, scale, order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import F32, F64
from pytest_kvquant.numerics.quantizer_inputs import BLOCKS_PER_ROW, EXPONENTS, TINY

DB_PER_BIT = 20 * math.log10(2)
"""6.02 dB: what a bit more is worth to an ideal quantizer."""

LLOYD_MAX = (0.0, 4.396, 9.300, 14.616, 20.222, 26.010, 31.890, 37.810, 43.800)
"""dB that the best scalar quantizer of 0 to 8 bits a value reaches on a normal source (Max 1960,
"Quantizing for minimum distortion", table I; Jayant and Noll 1984, table 4.3)."""

PLAIN_GAIN = 0.1
"""Values that come back in the basis in which they were handed in resemble themselves by more."""

MOST = 300.0
"""dB told of an error of zero: records hold no infinity."""


OVERFLOW = 1e300
"""Stands for what is not finite: larger than any limit."""


class QuantizerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What came back of seeded rows, in the quantizer's own basis."""

    type: str
    """ggml name of the cache type."""
    block: int
    """Values that share a scale."""
    bits: float
    """Bits stored per value, scales included: 8 × bytes of a block / its values."""
    own_basis: bool
    """Whether values come back rotated: the type's own basis, found by a Procrustes fit."""
    snr: float
    """Signal to error of normally distributed values, dB."""
    laplace: float
    """The same of Laplace-distributed values of variance 1, dB."""
    to_shannon: float
    """6.02 dB × bits − snr: how far from Shannon's bound, dB. Negative is impossible."""
    to_lloyd_max: float
    """snr − that of the best scalar quantizer of the payload's whole bits, dB."""
    gain: float
    """⟨back, sent⟩ / ⟨sent, sent⟩ − 1: how much the values shrink or grow along themselves."""
    norm: float
    """Mean over blocks of |back| / |sent|, minus 1."""
    norm_spread: float
    """Standard deviation of that ratio over blocks."""
    bias: float
    """Mean error over the root of the mean squared error."""
    worst_position: float
    """Largest mean squared error of a position in the block over the mean of all positions."""
    worst_place: float
    """Largest mean squared error of a block's place in its row over the mean of all places."""
    place_gain: float
    """Largest difference of a place's gain from that of all blocks."""
    worst_row: float
    """Largest NMSE of a row over the median row's."""
    worst_block: float
    """Largest NMSE of a block over the median block's."""
    block_gain_low: float
    """Smallest gain of a block, minus 1."""
    block_gain_high: float
    """Largest gain of a block, minus 1."""
    sign: float
    """snr of negated values − that of the same values, dB: 0 for a quantizer without a side."""
    asymmetry: float
    """Root mean square of back(−x) + back(x) over that of the error."""
    scale: dict[str, float]
    """Exponent n: snr of the values times 2^n − that of the values, dB."""
    outlier: float
    """snr of blocks with one value of 100 standard deviations, dB."""
    order: float
    """Largest difference when the same blocks come in reverse order: 0, blocks are independent."""
    zero: float
    """Largest value that came back of rows of zeros."""
    tiny: float
    """Largest |back| over the largest |sent| of rows with subnormal scales."""
    large_one: float
    """Largest |back| / 65504 of blocks that hold one ±65504; 1 is right, 1e300 an overflow."""
    large_all: float
    """The same of blocks that hold nothing else."""
    finite: bool
    """Whether all else that came back is finite."""
    rows: dict[str, float] = {}
    """``K`` and ``V``: snr of the model's own rows, dB; empty where none were sent."""


def measure(
    name: str,
    block: int,
    block_bytes: int,
    sent: Mapping[str, F32],
    back: Mapping[str, F32],
    rows: Mapping[str, tuple[F32, F32]] | None = None,
) -> QuantizerFigures:
    """Figures of a quantizer.

    Args:
        name: of the type.
        block: values that share a scale.
        block_bytes: what they are stored in.
        sent: as :func:`~pytest_kvquant.numerics.quantizer_inputs.make` gives them.
        back: the same keys and shapes, sent through the quantizer and read back.
        rows: by side, rows of the model and what came back; shape ``(rows, elements)``.

    Raises:
        ValueError: keys or shapes differ.
    """
    if {key: value.shape for key, value in sent.items()} != {
        key: value.shape for key, value in back.items()
    }:
        raise ValueError("what came back has other names or shapes than what was sent")
    bits = 8 * block_bytes / block
    turn = basis(sent["gaussian"], back["gaussian"], block)
    x = _turned(sent["gaussian"], turn, block)
    y = back["gaussian"].reshape(-1, block).astype(np.float64)
    few = sent["negated"].size // block
    snr, snr_few = decibel(x, y), decibel(x[:few], y[:few])
    error = y - x
    squared = np.square(error)
    size = np.square(x).sum(1)
    block_nmse = squared.sum(1) / size
    block_gain = (x * y).sum(1) / size - 1
    norms = np.sqrt(np.square(y).sum(1) / size)
    by_place = squared.sum(1).reshape(-1, BLOCKS_PER_ROW).mean(0)
    by_gain = block_gain.reshape(-1, BLOCKS_PER_ROW).mean(0)
    by_row = block_nmse.reshape(-1, BLOCKS_PER_ROW).mean(1)
    mse = float(squared.mean())
    negated = back["negated"].reshape(-1, block).astype(np.float64)
    return QuantizerFigures(
        type=name,
        block=block,
        bits=bits,
        own_basis=turn is not None,
        snr=snr,
        laplace=decibel(_turned(sent["laplace"], turn, block), back["laplace"]),
        to_shannon=DB_PER_BIT * bits - snr,
        to_lloyd_max=snr - lloyd_max(bits),
        gain=float((x * y).sum() / np.square(x).sum()) - 1,
        norm=_number(norms.mean() - 1),
        norm_spread=_number(norms.std()),
        bias=_number(error.mean() / math.sqrt(mse)) if mse else 0.0,
        worst_position=_times(squared.mean(0)),
        worst_place=_times(by_place),
        place_gain=_number(np.abs(by_gain - by_gain.mean()).max()),
        worst_row=_number(by_row.max() / max(float(np.median(by_row)), 1e-300)),
        worst_block=_number(block_nmse.max() / max(float(np.median(block_nmse)), 1e-300)),
        block_gain_low=_number(block_gain.min()),
        block_gain_high=_number(block_gain.max()),
        sign=decibel(-x[:few], negated) - snr_few,
        asymmetry=_number(math.sqrt(np.square(negated + y[:few]).mean() / mse)) if mse else 0.0,
        scale={
            str(n): decibel(
                _turned(sent[f"scaled_{n}"], turn, block), back[f"scaled_{n}"]
            ) - snr_few
            for n in EXPONENTS
        },
        outlier=decibel(_turned(sent["outlier"], turn, block), back["outlier"]),
        order=_number(np.abs(back["again"][::-1] - back["gaussian"][: len(back["again"])]).max()),
        zero=_number(np.abs(back["zero"]).max()),
        tiny=max(_reach(sent[f"tiny_{s:g}"], back[f"tiny_{s:g}"], turn, block) for s in TINY),
        large_one=_reach(sent["large_one"], back["large_one"], turn, block),
        large_all=_reach(sent["large_all"], back["large_all"], turn, block),
        finite=all(
            bool(np.isfinite(values).all())
            for key, values in back.items()
            if not key.startswith("large")
        ),
        rows={
            side: decibel(_turned(given, turn, block), got)
            for side, (given, got) in (rows or {}).items()
        },
    )  # fmt: skip


def basis(sent: F32, back: F32, block: int) -> F64 | None:
    """The orthogonal matrix Q of shape ``(block, block)`` with ``back ≈ sent @ Q``.

    ``None`` where values come back as they were handed in. By Procrustes (Schönemann 1966).
    """
    x = sent.reshape(-1, block).astype(np.float64)
    y = np.nan_to_num(back.reshape(-1, block).astype(np.float64), posinf=0, neginf=0)
    if (x * y).sum() > PLAIN_GAIN * np.square(x).sum():
        return None
    left, _, right = np.linalg.svd(x.T @ y)
    found: F64 = left @ right
    return found


def lloyd_max(bits: float) -> float:
    """dB of the best scalar quantizer whose levels fit into the payload of so many bits.

    An eighth of a bit a value at least is a scale's: 16 bits for 128 values.
    """
    return LLOYD_MAX[min(len(LLOYD_MAX) - 1, max(0, math.floor(bits - 0.125)))]


def decibel(sent: npt.NDArray[np.floating], back: npt.NDArray[np.floating]) -> float:
    """Signal over error; ±300 where either is zero or not a number.

    >>> round(decibel(np.array([1.0, -1.0]), np.array([1.1, -0.9])))
    20
    """
    x, y = sent.reshape(-1).astype(np.float64), back.reshape(-1).astype(np.float64)
    error = float(np.square(y - x).sum())
    signal = float(np.square(x).sum())
    if not math.isfinite(error) or signal == 0:
        return -MOST
    return min(MOST, 10 * math.log10(signal / error)) if error else MOST


def _turned(values: F32, turn: F64 | None, block: int) -> F64:
    blocks = values.reshape(-1, block).astype(np.float64)
    return blocks if turn is None else blocks @ turn


def _times(errors: F64) -> float:
    mean = float(errors.mean())
    return _number(errors.max() / mean) if mean else 1.0


def _reach(sent: F32, back: F32, turn: F64 | None, block: int) -> float:
    """Largest size that came back over the largest that was sent, in one basis."""
    least = float(np.finfo(np.float16).smallest_subnormal)
    most = float(np.abs(_turned(sent, turn, block)).max())
    return _number(np.abs(back.astype(np.float64)).max() / max(most, least))


def _number(value: float | np.floating) -> float:
    """A figure that a record can hold; what is not a number is worse than any limit."""
    return float(value) if math.isfinite(value) else OVERFLOW
