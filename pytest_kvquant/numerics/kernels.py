"""Fused loops over logits: two rows of a vocabulary in, a few figures per token out.

Everything that the gates need of a scored token is taken in one visit of its two rows, in float64,
rows in parallel. KL is computed without cancellation,

    KL(P‖Q) = (ln Z_q − ln Z_p) + Σ p·(x_p − x_q),

with the maxima taken out of both exponentials; equal rows give exactly zero.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]

_FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Reordering of sums is allowed; assuming that NaN and infinity never occur is not."""

LN2 = math.log(2.0)
LOG2_E = 1.0 / LN2


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
        Figures per row. A row with a NaN or an infinity on either side has NaN as its ``kl``.

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
    p_sum, q_sum, weighted, p_max, q_max, second = np.empty((6, rows))
    tops = np.empty((2, rows), np.int32)
    digest = np.empty(rows, np.uint64)
    sums = (p_sum, q_sum, weighted, p_max, q_max, second)
    _visit(reference, cell, cell.view(np.uint32), *sums, *tops, digest)
    with np.errstate(invalid="ignore", over="ignore"):
        p_log, q_log = np.log(p_sum), np.log(q_sum)
        kl = ((q_log - p_log) + (q_max - p_max)) + weighted / p_sum
        each = np.arange(rows)
        nll_reference = p_log + (p_max - reference[each, targets])
        nll_cell = q_log + (q_max - cell[each, targets])
        return TokenFigures(
            nll_reference=nll_reference,
            nll_cell=nll_cell,
            kl=np.where(np.isfinite(kl), kl, np.nan),
            delta_p=np.exp(-nll_cell) - np.exp(-nll_reference),
            margin=p_max - second,
            top_reference=tops[0],
            top_cell=tops[1],
            digest=digest,
        )


def pairwise_kl(reference: F32, cell: F32) -> F64:
    """KL(reference ‖ cell) per row, nats, shape ``(n,)``; see :func:`compare_rows`."""
    return compare_rows(reference, cell, np.zeros(cell.shape[0], np.int32)).kl


@intrinsic
def _float_of_bits(_typing: Any, _bits: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit(inline="always")
def _exp(x: float) -> Any:
    """e**x for x ≤ 0, relative error below 1e-15.

    ``math.exp`` is a call into libm per element; this is straight-line arithmetic that LLVM turns
    into vector code: 2**k times a Taylor polynomial of degree 12 on |r| ≤ ln 2 / 2 (Cody and Waite
    1980, ch. 6).
    """
    x = max(x, -700.0)
    k = np.int64(x * LOG2_E - 0.5)
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
    return p * _float_of_bits((k + 1023) << 52)


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
    p_sum: F64,
    q_sum: F64,
    weighted: F64,
    p_max: F64,
    q_max: F64,
    second: F64,
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
        second[i] = max(_maximum(p_row, 0, p_top[i]), _maximum(p_row, p_top[i] + 1, vocabulary))
        p_high, q_high = np.float64(p_best), np.float64(q_best)
        p_total, q_total, moved = 0.0, 0.0, 0.0
        hashed, differing = np.uint64(0), 0
        for j in range(vocabulary):
            x, y = np.float64(p_row[j]), np.float64(q_row[j])
            p = _exp(x - p_high)
            p_total += p
            q_total += _exp(y - q_high)
            moved += p * (x - y)
            differing += x != y
            hashed += np.uint64(bits[j]) * np.uint64(0x9E3779B97F4A7C15 + 2 * j)
        if differing == 0:
            q_total = p_total  # equal rows, but the two sums may have been rounded differently
        p_sum[i], q_sum[i], weighted[i] = p_total, q_total, moved
        p_max[i], q_max[i] = p_high, q_high
        digest[i] = hashed
