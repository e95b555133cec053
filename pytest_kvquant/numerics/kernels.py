"""Fused loops over logits: two rows of a vocabulary in, a few figures per token out.

Everything that the gates need of a scored token is taken in one visit of its two rows, in float64,
rows in parallel. KL is computed without cancellation: with d = x_q − x_p, centred under p,

    KL(P‖Q) = ln(1 + Σ p·(e^d − 1 − d)),

of which no term is negative, and small ones come from a series; equal rows give exactly zero. The
centre need not be exact, for what is left of the mean is summed too and taken out (:func:`_kl`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import F32, F64, I32
from pytest_kvquant.numerics.stable import FAR, log1p_less

U64 = npt.NDArray[np.uint64]


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
    from pytest_kvquant.numerics.loops import visit  # compiled: numba is imported when it is used

    rows = cell.shape[0]
    summed = np.empty((rows, len(_Sums._fields)))
    tops = np.empty((2, rows), np.int32)
    digest = np.empty(rows, np.uint64)
    visit(reference, cell, cell.view(np.uint32), summed, *tops, digest)
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
    """KL per row of what :func:`pytest_kvquant.numerics.loops.visit` summed."""
    apart = sums.q_max - sums.p_max
    convex, rest = sums.convex / sums.p, sums.rest / sums.p
    near = log1p_less(convex, rest)
    far = (np.log(sums.q) - np.log(sums.p) + apart) + sums.moved / sums.p
    kl = np.where(np.abs(apart - sums.centre) < FAR, np.maximum(near, 0.0), far)
    legal = np.isfinite(apart) & np.isfinite(sums.moved)
    return np.where(legal, np.where(sums.lost > 0, np.inf, kl), np.nan)
