"""Attention in exact arithmetic: some query rows, all keys, in float64.

Shapes are those of one head. Arrays may have dimensions in front of them, a head each: all are
computed at once. Pure: NumPy arrays in, numbers out; the worker imports it too, so nothing but
NumPy is used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pytest_kvquant.numerics.arrays import F64, I64

HALF_ROUNDING = 2.0**-20 / 12
"""Mean square of the relative error of one rounding to f16, at its largest: errors are uniform
within a spacing, which is 2⁻¹⁰ of the smallest value that has it (half of that of the largest)."""

SINGLE_ROUNDING = 2.0**-46 / 12
"""The same of one rounding to f32."""

BLOCKS = 16
"""Partial sums looked at, at most, for how an accumulator's rounding adds up."""


class Scores(NamedTuple):
    """How an attention operation turns products of query and key into scores."""

    scale: float
    softcap: float = 0.0
    """``softcap · tanh(score / softcap)``; 0: none."""
    slope: float | F64 = 1.0
    """ALiBi's factor of the mask for this head; of several heads, shape ``(heads, 1, 1)``."""
    sink: float | F64 | None = None
    """A score that takes part in the softmax and brings no value; of several heads likewise."""


class Attended(NamedTuple):
    """What attention should give, and how its figures move."""

    out: F64
    """Shape ``(rows, value size)``."""
    by_score: F64
    """Derivative of ``out`` by the logarithm of a common factor of all scores."""
    by_each_score: F64
    """Shape ``(rows,)``: expected squared change of ``out``, in squares of what each score is
    moved by for itself: Σ w²·|v − out|². A common factor may move nothing where scores are alike,
    and each for itself still does."""
    halves: F64
    """Shape ``(rows,)``: expected squared error if sums are kept in f16."""
    singles: F64
    """The same if sums are kept in f32 and weights of the softmax are exact."""
    weights_in_half: F64
    """The same if the softmax's weights are rounded to f16 before they meet the values."""


def slopes(heads: int, bias: float) -> F64:
    """ALiBi's factors per head, as ggml computes them; ones where ``bias`` is 0."""
    if bias <= 0:
        return np.ones(heads)
    power = 1 << (heads.bit_length() - 1)
    first, rest = 2.0 ** (-bias / power), 2.0 ** (-bias / 2 / power)
    return np.array(
        [
            first ** (head + 1) if head < power else rest ** (2 * (head - power) + 1)
            for head in range(heads)
        ]
    )


def attend(q: F64, k: F64, v: F64, mask: F64, how: Scores) -> Attended:
    """softmax(scale·QKᵀ + slope·mask)·V of one head.

    Args:
        q: shape ``(rows, key size)``.
        k: shape ``(cells, key size)``.
        v: shape ``(cells, value size)``.
        mask: shape ``(rows, cells)`` for all heads, added to the scores; -inf hides a cell.
    """
    seen = np.flatnonzero((mask > -np.inf).any(axis=0))
    if len(seen) < mask.shape[1]:
        k, v, mask = k[..., seen, :], v[..., seen, :], mask[:, seen]
    score = scores(q, k, how)
    weights = weights_of(score, mask, how)
    out = weights @ v
    moved = weights * (score - (weights * score).sum(axis=-1, keepdims=True))
    halves, most = _accumulated(weights, v)
    shares = np.square(weights)
    square = (shares @ squares(v)[..., None])[..., 0]
    each = square - 2 * _dot(out, shares @ v) + squares(out) * shares.sum(axis=-1)
    return Attended(
        out,
        moved @ v,
        np.maximum(each, 0),
        HALF_ROUNDING * (halves + square),
        SINGLE_ROUNDING * (halves + 16 * square) + 1e-13 * most,
        HALF_ROUNDING * square,
    )


def scores(q: F64, k: F64, how: Scores) -> F64:
    """Scaled and capped products, shape ``(rows, cells)``."""
    score = how.scale * (q @ np.swapaxes(k, -1, -2))
    return how.softcap * np.tanh(score / how.softcap) if how.softcap else score


def weights_of(score: F64, mask: F64, how: Scores) -> F64:
    """The softmax of masked scores, shape ``(rows, cells)``; rows that see nothing are zeros."""
    shown = mask > -np.inf
    biased = np.where(shown, score + how.slope * np.where(shown, mask, 0), -np.inf)
    return _softmax(biased, how.sink)


def _softmax(score: F64, sink: float | F64 | None) -> F64:
    largest = score.max(axis=-1, keepdims=True, initial=-np.inf)
    if sink is not None:
        largest = np.maximum(largest, sink)
    largest = np.where(np.isfinite(largest), largest, 0)
    raised = np.exp(score - largest)
    total = raised.sum(axis=-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - largest)
    return np.asarray(raised / np.where(total > 0, total, 1))


def _accumulated(weights: F64, v: F64) -> tuple[F64, F64]:
    """Sum of the squared sizes of all partial sums, and the largest of them; shape ``(rows,)``.

    An accumulator is rounded once per key, in proportion to what it holds at that moment.
    """
    cells, rows = weights.shape[-1], weights.shape[:-1]
    if not cells:
        return np.zeros(rows), np.zeros(rows)
    step = -(-cells // BLOCKS)
    held, sizes = np.zeros((*rows, v.shape[-1])), []
    for start in range(0, cells, step):
        held += weights[..., start : start + step] @ v[..., start : start + step, :]
        sizes.append(squares(held))
    return step * np.sum(sizes, axis=0), np.max(sizes, axis=0)


def squares(rows: F64) -> F64:
    """Squared lengths of rows, shape ``(rows,)``."""
    return _dot(rows, rows)


def _dot(a: F64, b: F64) -> F64:
    return np.asarray(np.einsum("...e,...e->...", a, b))


class Misfit(NamedTuple):
    """How an output differs from what it should be; a figure for each head.

    Squared errors are over the head's mean squared row, so that a row that happens to be small
    does not weigh more.
    """

    error: F64
    """Mean over rows."""
    worst: F64
    """Largest of a row."""
    row: I64
    """Which row that is."""
    by_score: F64
    """Common relative change of the scores that fits the error best."""
    by_value: F64
    """Common relative change of the values that fits it best."""
    by_part: F64
    """Largest squared error of a group of 32 elements over all rows, as a share of the group."""


def misfit(out: F64, meant: Attended) -> Misfit:
    """Compare rows of an output with what they should be; NaN counts as infinitely wrong."""
    sizes = squares(meant.out).mean(axis=-1)
    with np.errstate(invalid="ignore"):
        error = out - meant.out
        rows = squares(error) / np.where(sizes == 0, 1.0, sizes)[..., None]
        rows = np.where(np.isfinite(rows), rows, np.inf)
        parts = (*_gains(error, meant), _by_part(error, meant.out))
    mean = rows.mean(axis=-1)
    by_score, by_value, by_part = (np.where(np.isfinite(mean), part, np.inf) for part in parts)
    return Misfit(mean, rows.max(axis=-1), rows.argmax(axis=-1), by_score, by_value, by_part)


def _gains(error: F64, meant: Attended) -> tuple[F64, F64]:
    """Least squares of the error on both directions at once: they are not orthogonal."""
    flat = _flat(error)
    ae, be = _dot(_flat(meant.by_score), flat), _dot(_flat(meant.out), flat)
    (aa, bb, ab), apart = _products(meant)
    alone = _over(be, bb, 0.0)
    return (
        _over(ae * bb - be * ab, apart, 0.0),
        np.where(apart > 0, _over(be * aa - ae * ab, apart, 0.0), alone),
    )


def spreads(meant: Attended) -> tuple[F64, F64]:
    """Standard deviations of both common changes, if each element has an error of one."""
    (aa, bb, _), apart = _products(meant)
    alone = _over(np.ones_like(bb), np.sqrt(bb), np.inf)
    return (
        np.sqrt(_over(bb, apart, np.inf)),
        np.where(apart > 0, np.sqrt(_over(aa, apart, np.inf)), alone),
    )


def gain_of(noise: F64, meant: Attended) -> F64:
    """Three deviations of a common change of the scores, if rows are wrong along that direction.

    Errors of single scores are, where a query sees a few cells.

    Args:
        noise: squared error of each row, shape ``(rows,)``.
    """
    each = squares(meant.by_score)
    return 3.0 * _over(np.sqrt(_dot(noise, each)), each.sum(axis=-1), 0.0)


def _products(meant: Attended) -> tuple[tuple[F64, F64, F64], F64]:
    """Products of both directions, and their determinant; 0 where they cannot be told apart."""
    a, b = _flat(meant.by_score), _flat(meant.out)
    aa, bb, ab = squares(a), squares(b), _dot(a, b)
    apart = aa * bb - ab * ab
    return (aa, bb, ab), np.where(apart > 1e-9 * aa * bb, apart, 0.0)


def _flat(rows: F64) -> F64:
    """All elements of a head in one dimension."""
    return rows.reshape(*rows.shape[:-2], -1)


def _over(a: F64, b: F64, otherwise: float) -> F64:
    """The quotient, where there is something to divide by."""
    return np.asarray(np.divide(a, b, out=np.full(np.shape(a), otherwise), where=b > 0))


def _by_part(error: F64, meant: F64) -> F64:
    starts = np.arange(0, error.shape[-1], 32)
    wrong = np.add.reduceat(np.square(error).sum(axis=-2), starts, axis=-1)
    size = np.add.reduceat(np.square(meant).sum(axis=-2), starts, axis=-1)
    return np.asarray((wrong / np.maximum(size, 1e-30)).max(axis=-1))
