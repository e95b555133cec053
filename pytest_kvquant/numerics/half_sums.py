"""Attention whose sums are kept in f16, step by step, as ggml's CPU kernel does for f16 values.

Long sums of small terms do not only get noisy, they get smaller: a term below half a spacing of
what has been summed up is lost. No model of independent errors says by how much; doing the same
again does. Pure; the worker imports it too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import F32, F64
from pytest_kvquant.numerics.attention import Scores, scores, squares, weights_of

F16 = npt.NDArray[np.float16]

_DEVIATION = 2.0 * 2.0**-12
"""Twice what a few roundings of half a spacing of f16 deviate, relative to what is rounded."""


def attend_in_halves(q: F64, k: F64, v: F64, mask: F64, how: Scores, *, parts: int = 1) -> F64:
    """The same as :func:`~pytest_kvquant.numerics.attention.attend`, in the kernel's own steps.

    Args:
        parts: into how many stretches of cells the kernel splits the work, one a thread; their
            results are summed up in f32.

    Returns:
        Shape ``(rows, value size)``.
    """
    visible = mask > -np.inf
    biased: F32 = (scores(q, k, how) + how.slope * np.where(visible, mask, 0)).astype(np.float32)
    size = -(-len(k) // parts)
    stretches = [
        _summed(biased, v.astype(np.float32), visible, start, min(start + size, len(k)))
        for start in range(0, len(k), size)
    ]
    return _joined(stretches, how.sink)


def products_in_half(q: F64, k: F64, v: F64, mask: F64, how: Scores) -> F64:
    """Expected squared error of each row if products of queries and keys are summed in f16.

    The last few sums of a product's lanes are as large as the product, those before like sums of
    so many random terms. Each is rounded by itself, so that scores are wrong independently of each
    other, and a query that sees two cells shows a single rounding: hence twice the deviation. Of
    hundreds of rows of a simulated kernel, the worst is 10 times as wrong as one deviation says.

    Args:
        q: with dimensions in front, a head each, like those of the others.

    Returns:
        Shape ``(rows,)``.
    """
    sizes = np.linalg.norm(q, axis=-1)[..., :, None] * np.linalg.norm(k, axis=-1)[..., None, :]
    plain = np.abs(q @ np.swapaxes(k, -1, -2)) + 2 * sizes / np.sqrt(q.shape[-1])
    weights = weights_of(scores(q, k, how), mask, how)
    out = weights @ v
    each = np.square(weights * (_DEVIATION * abs(how.scale) * plain))
    whole = (each @ squares(v)[..., None])[..., 0] + each.sum(axis=-1) * squares(out)
    return np.asarray(whole - 2 * ((each @ v) * out).sum(axis=-1))


def _summed(
    score: F32, v: F32, visible: npt.NDArray[np.bool_], start: int, stop: int
) -> tuple[F32, F32, F32]:
    """Largest score, sum of weights, and weighted sum of a stretch of cells."""
    rows = len(score)
    most, total = np.full(rows, -np.inf, np.float32), np.zeros(rows, np.float32)
    kept: F16 = np.zeros((rows, v.shape[1]), np.float16)
    for cell in range(start, stop):
        seen = visible[:, cell]
        if not seen.any():
            continue
        here = score[:, cell]
        higher = seen & (here > most)
        with np.errstate(invalid="ignore"):
            shrink = np.where(higher, np.exp(most - here), np.float32(1)).astype(np.float32)
            weight = np.where(higher, np.float32(1), np.exp(here - most)).astype(np.float32)
        most = np.where(higher, here, most)
        if higher.any():
            kept[higher] = (kept[higher].astype(np.float32) * shrink[higher, None]).astype(
                np.float16
            )
        added = kept.astype(np.float32) + v[cell] * weight[:, None]
        kept[seen] = added[seen].astype(np.float16)
        total = np.where(seen, total * shrink + weight, total).astype(np.float32)
    return most, total, kept.astype(np.float32)


def _joined(stretches: list[tuple[F32, F32, F32]], sink: float | F64 | None) -> F64:
    most = np.max([stretch[0] for stretch in stretches], axis=0)
    if sink is not None:
        most = np.maximum(most, np.float32(sink))
    most = np.where(np.isfinite(most), most, np.float32(0))
    weight, total = np.zeros(len(most)), np.zeros((len(most), stretches[0][2].shape[1]))
    for highest, weights, kept in stretches:
        factor = np.exp(np.where(np.isfinite(highest), highest - most, -np.inf)).astype(np.float64)
        weight += factor * weights
        total += factor[:, None] * kept
    if sink is not None:
        weight += np.exp(sink - most)
    return np.asarray(total / np.where(weight > 0, weight, 1)[:, None])
