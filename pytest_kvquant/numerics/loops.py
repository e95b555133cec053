"""The compiled loops of :mod:`pytest_kvquant.numerics.kernels`; importing this imports numba."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

from pytest_kvquant.numerics.arrays import F32, F64, I32
from pytest_kvquant.numerics.compiled import cached
from pytest_kvquant.numerics.stable import FAR

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]

_FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Reordering of sums is allowed; assuming that NaN and infinity never occur is not."""

LN2 = math.log(2.0)
LOG2_E = 1.0 / LN2

_LEAST = np.float64(np.finfo(np.float32).min)
"""Stands for a logit of −inf, so that the difference of two masked ones is zero and not NaN."""

_SMALL = 0.125
"""Differences up to here go through the series; e^d − 1 − d loses 7 bits beyond it."""


@intrinsic
def _float_of_bits(_typing: object, _bits: object) -> tuple[object, Callable[..., object]]:
    def generate(
        _context: object, builder: ir.IRBuilder, _signature: object, args: Sequence[ir.Value]
    ) -> object:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit(inline="always", error_model="numpy")
def _exp(x: float) -> float:
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


@njit(inline="always", error_model="numpy")
def _series(d: float) -> float:
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


@njit(inline="always", error_model="numpy")
def _centre(p_row: F32, q_row: F32, p_best: np.float32, q_best: np.float32) -> np.float64:
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


@njit(inline="always", error_model="numpy")
def _maximum(row: F32, start: int, stop: int) -> np.float32:
    best = np.float32(-np.inf)
    for j in range(start, stop):
        best = max(best, row[j])
    return best


@njit(inline="always", error_model="numpy")
def _index(row: F32, value: np.float32) -> int:
    for j in range(row.shape[0]):
        if row[j] == value:
            return j
    return 0


_WORTH_A_THREAD = 1 << 17
"""Logits for which another thread is asked: a millisecond, many times what asking it takes."""

_MOST_THREADS = 16
"""Beyond, memory is what is waited for."""


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that stay: starting one takes as long as a chunk where the kernel is emulated."""
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="compare")


def visit(reference: F32, cell: F32, *others: F64 | I32 | U64 | U32) -> None:
    """:func:`_visit`, rows shared out among threads; each row comes out as it does alone."""
    rows = cell.shape[0]
    most = min(config.NUMBA_NUM_THREADS, _MOST_THREADS, rows)
    threads = max(1, min(most, cell.size // _WORTH_A_THREAD))
    if threads == 1:
        _visit(reference, cell, *others)
        return
    ends = [rows * number // threads for number in range(threads + 1)]
    shares = [
        _pool().submit(_visit, *(each[start:stop] for each in (reference, cell, *others)))
        for start, stop in itertools.pairwise(ends)
    ]
    for share in shares:
        share.result()


@cached
@njit(fastmath=_FAST, nogil=True, error_model="numpy")
def _visit(
    reference: F32,
    cell: F32,
    cell_bits: U32,
    sums: F64,
    p_top: I32,
    q_top: I32,
    digest: U64,
) -> None:
    """Sums per row; what is made of them stays outside, where arithmetic is not reordered.

    Not ``parallel=True``: what such a function gives in the process that compiles it differs in the
    last bits from what its kept form gives in all later ones (seen with numba 0.68.1).
    """
    rows, vocabulary = cell.shape
    for i in range(rows):
        p_row, q_row, bits = reference[i], cell[i], cell_bits[i]
        p_best, q_best = _maximum(p_row, 0, vocabulary), _maximum(q_row, 0, vocabulary)
        p_top[i], q_top[i] = _index(p_row, p_best), _index(q_row, q_best)
        below = max(_maximum(p_row, 0, p_top[i]), _maximum(p_row, p_top[i] + 1, vocabulary))
        p_high, q_high = np.float64(p_best), np.float64(q_best)
        centre = _centre(p_row, q_row, p_best, q_best)
        gain = math.exp(min(max(q_high - p_high - centre, -FAR), FAR))
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
