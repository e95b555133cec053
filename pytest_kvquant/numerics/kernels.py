"""Fused loops over logits: two rows of a vocabulary in, a few figures per token out.

Everything that the gates need of a scored token is taken in one visit of its two rows, in float64,
rows in parallel. KL is computed without cancellation: with d = x_q − x_p, centred under p,

    KL(P‖Q) = ln(1 + Σ p·(e^d − 1 − d)),

of which no term is negative, and small ones come from a series; equal rows give exactly zero. The
centre need not be exact, for what is left of the mean is summed too and taken out (:func:`_kl`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from pytest_kvquant.numerics.stable import log1p_less

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]

_FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Reordering of sums is allowed; assuming that NaN and infinity never occur is not."""

LN2 = math.log(2.0)
LOG2_E = 1.0 / LN2

_LEAST = np.float64(np.finfo(np.float32).min)
"""Stands for a logit of −inf, so that the difference of two masked ones is zero and not NaN."""

_SMALL = 0.125
"""Differences up to here go through the series; e^d − 1 − d loses 7 bits beyond it."""

_FAR = 30.0
"""From this ln of a ratio of Z on, KL is above 17 whatever the vocabulary: nothing cancels."""


class TokenFigures(NamedTuple):
    """Figures per scored token; every array has shape ``(n,)``. Log figures are in nats."""

    nll_reference: F64
    """−ln p of the token that came next, under the reference."""
    nll_cell: F64
    """−ln p of the token that came next, under the cell."""
    kl: F64
    """KL(reference ‖ cell) over the whole vocabulary."""
    delta_p: F64
    """p(cell) − p(reference) of the token that came next."""
    margin: F64
    """The reference's logit margin between its first and its second choice."""
    top_reference: I32
    """The reference's argmax; the lowest id where several tie."""
    top_cell: I32
    """The cell's argmax; the lowest id where several tie."""
    digest: U64
    """A hash of the cell's row, bit by bit: equal rows have equal digests."""


FIGURE_TYPES = (*(np.float64,) * 5, *(np.int32,) * 2, np.uint64)
"""Element types of the columns of :class:`TokenFigures`, in order."""


def compare_rows(reference: F32, cell: F32, targets: I32) -> TokenFigures:
    """Compare two blocks of logits row by row.

    Args:
        reference: logits of the reference, shape ``(n, vocabulary)``, contiguous.
        cell: logits of the cell, same shape.
        targets: the token that really came next, shape ``(n,)``.

    Returns:
        Figures per row. −inf is a masked token, of probability zero: masked on both sides it adds
        nothing to ``kl``; masked in the reference alone it takes its share of the cell's
        probability; masked in the cell alone ``kl`` is infinite. A row with a NaN or +inf on
        either side, or with nothing but −inf, has NaN as its ``kl``.

    Raises:
        ValueError: shapes differ, or a vocabulary of fewer than two tokens.
    """
    if reference.shape != cell.shape or reference.ndim != 2 or targets.shape != cell.shape[:1]:
        raise ValueError(
            f"logits of shapes {reference.shape} and {cell.shape} with {targets.shape} targets "
            "cannot be compared"
        )
    if cell.shape[1] < 2:
        raise ValueError("a vocabulary needs at least two tokens")
    rows = cell.shape[0]
    summed = np.empty((rows, len(_Sums._fields)))
    tops = np.empty((2, rows), np.int32)
    digest = np.empty(rows, np.uint64)
    _visit(reference, cell, cell.view(np.uint32), summed, *tops, digest)
    sums = _Sums._make(summed.T)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        each = np.arange(rows)
        nll_reference = np.log(sums.p) + (sums.p_max - reference[each, targets])
        nll_cell = np.log(sums.q) + (sums.q_max - cell[each, targets])
        return TokenFigures(
            nll_reference=nll_reference,
            nll_cell=nll_cell,
            kl=_kl(sums),
            delta_p=np.exp(-nll_cell) - np.exp(-nll_reference),
            margin=sums.p_max - sums.second,
            top_reference=tops[0],
            top_cell=tops[1],
            digest=digest,
        )


def pairwise_kl(reference: F32, cell: F32) -> F64:
    """KL(reference ‖ cell) per row, nats, shape ``(n,)``; see :func:`compare_rows`."""
    return compare_rows(reference, cell, np.zeros(cell.shape[0], np.int32)).kl


class _Sums(NamedTuple):
    """What one visit of two rows leaves, each of shape ``(n,)``; sums are over the vocabulary."""

    p: F64
    """Σ e^(x − p_max)."""
    q: F64
    """Σ e^(y − q_max)."""
    moved: F64
    """Σ p·(x − y)."""
    convex: F64
    """Σ p·(e^d − 1 − d) with d = y − x − centre."""
    rest: F64
    """Σ p·d: what the centre missed."""
    centre: F64
    lost: F64
    """Tokens that the cell alone masks."""
    p_max: F64
    q_max: F64
    second: F64
    """The reference's second highest logit."""


def _kl(sums: _Sums) -> F64:
    """KL per row of what :func:`_visit` summed."""
    apart = sums.q_max - sums.p_max
    convex, rest = sums.convex / sums.p, sums.rest / sums.p
    near = log1p_less(convex, rest)
    far = (np.log(sums.q) - np.log(sums.p) + apart) + sums.moved / sums.p
    kl = np.where(np.abs(apart - sums.centre) < _FAR, np.maximum(near, 0.0), far)
    legal = np.isfinite(apart) & np.isfinite(sums.moved)
    return np.where(legal, np.where(sums.lost > 0, np.inf, kl), np.nan)


@intrinsic
def _float_of_bits(_typing: Any, _bits: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit(inline="always")
def _exp(x: float) -> Any:
    """e**x for x ≤ 0, relative error below 1e-15; zero below e**−700.

    ``math.exp`` is a call into libm per element; this is straight-line arithmetic that LLVM turns
    into vector code: 2**k times a Taylor polynomial of degree 12 on |r| ≤ ln 2 / 2 (Cody and Waite
    1980, ch. 6).
    """
    absent = x < -700.0
    x = -700.0 if absent else x
    k = np.int64(np.int32(x * LOG2_E - 0.5))  # by way of int32, which AVX2 can convert to
    r = x - k * LN2
    p = 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    p = p * _float_of_bits((k + 1023) << 52)
    return 0.0 if absent else p


@njit(inline="always")
def _series(d: float) -> Any:
    """e**d − 1 − d for |d| ≤ ``_SMALL``, relative error below 1e-13: its Taylor series."""
    s = 1.0 / 362880.0
    s = s * d + 1.0 / 40320.0
    s = s * d + 1.0 / 5040.0
    s = s * d + 1.0 / 720.0
    s = s * d + 1.0 / 120.0
    s = s * d + 1.0 / 24.0
    s = s * d + 1.0 / 6.0
    s = s * d + 0.5
    return s * d * d


@njit(inline="always")
def _centre(p_row: Any, q_row: Any, p_best: Any, q_best: Any) -> Any:
    """Roughly Σ p·(y − x), to a few percent of what y − x varies by, which is near enough.

    In float32, with (1 + x / 256)**256 for e**x. The maxima are taken out first, so that a shift of
    the whole row costs no digits. Values that float32 cannot hold are cut: there KL is so large
    that the centre does not matter.
    """
    one, most = np.float32(1), np.float32(1e30)
    total, moved = np.float32(0), np.float32(0)
    for j in range(p_row.shape[0]):
        x = p_row[j] - p_best
        seen = x > np.float32(-16)  # the tokens below have less than 1e-7 of the highest one's
        z = one + (x if seen else np.float32(-16)) * np.float32(1 / 256)
        z = z * z
        z = z * z
        z = z * z
        z = z * z
        z = z * z
        z = z * z
        z = z * z
        z = z * z
        p = z if seen else np.float32(0)
        d = (q_row[j] - q_best) - x
        d = d if d > -most else -most
        total += p
        moved += p * (d if d < most else most)
    return (np.float64(q_best) - np.float64(p_best)) + np.float64(moved / total)


@njit(inline="always")
def _maximum(row: Any, start: int, stop: int) -> Any:
    best = np.float32(-np.inf)
    for j in range(start, stop):
        best = max(best, row[j])
    return best


@njit(inline="always")
def _index(row: Any, value: Any) -> int:
    for j in range(row.shape[0]):
        if row[j] == value:
            return j
    return 0


@njit(parallel=True, fastmath=_FAST, cache=True, nogil=True)
def _visit(
    reference: F32,
    cell: F32,
    cell_bits: Any,
    sums: F64,
    p_top: I32,
    q_top: I32,
    digest: U64,
) -> None:
    """Sums per row; what is made of them stays outside, where arithmetic is not reordered."""
    rows, vocabulary = cell.shape
    for i in prange(rows):
        p_row, q_row, bits = reference[i], cell[i], cell_bits[i]
        p_best, q_best = _maximum(p_row, 0, vocabulary), _maximum(q_row, 0, vocabulary)
        p_top[i], q_top[i] = _index(p_row, p_best), _index(q_row, q_best)
        below = max(_maximum(p_row, 0, p_top[i]), _maximum(p_row, p_top[i] + 1, vocabulary))
        p_high, q_high = np.float64(p_best), np.float64(q_best)
        centre = _centre(p_row, q_row, p_best, q_best)
        gain = math.exp(min(max(q_high - p_high - centre, -_FAR), _FAR))
        p_total, q_total, moved, convex, rest = 0.0, 0.0, 0.0, 0.0, 0.0
        hashed, differing, lost = np.uint64(0), 0, 0
        for j in range(vocabulary):
            x, y = np.float64(p_row[j]), np.float64(q_row[j])
            differing += x != y
            lost += (y == -np.inf) & (x != -np.inf)
            x, y = (_LEAST if x == -np.inf else x), (_LEAST if y == -np.inf else y)
            p, q = _exp(x - p_high), _exp(y - q_high)
            d = (y - x) - centre
            small, large = p * _series(d), q * gain - p * (1.0 + d)
            convex += small if abs(d) < _SMALL else large
            rest += p * d
            p_total += p
            q_total += q
            moved += p * (x - y)
            hashed += np.uint64(bits[j]) * np.uint64(0x9E3779B97F4A7C15 + 2 * j)
        if differing == 0:
            q_total = p_total  # equal rows, but the two sums may have been rounded differently
            convex, rest = 0.0, 0.0
        found = sums[i]  # in the order of _Sums
        found[0], found[1], found[2] = p_total, q_total, moved
        found[3], found[4], found[5], found[6] = convex, rest, centre, lost
        found[7], found[8], found[9] = p_high, q_high, below
        digest[i] = hashed
