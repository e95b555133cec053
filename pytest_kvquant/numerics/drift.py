"""Two measurements of one cell on the same tokens → whether it drifted, as data.

The rules are those of a baseline. With the same tokens the figures of both measurements are paired
by chunk, which makes the comparison tens of times sharper than one of means:

    r_c = ln(KL_c / KL0_c),   drift when |mean r| − t·s/√n > τ,   τ = max(5 %, 3·spread, floor/KL0)

t is the (1 − α/4) quantile of Student's t on n − 1 degrees. Beside it the absolute figures: the ln
PPL ratio may move by 1e-4, top-1 by 0.1 points. Where KL0 is under 10 × the noise floor, KL is
noise, and only these count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from pytest_kvquant.numerics import stats
from pytest_kvquant.numerics.arrays import F64

KL_TOLERANCE = 0.05
"""A relative change of mean KL that is nobody's business."""

LN_PPL_TOLERANCE = 1e-4
TOP1_TOLERANCE = 1e-3
ALPHA = 0.01
SPREAD = 0.031
"""Relative change of a cell's mean KL by rounding alone: the largest of five cells between builds
for AVX-512, AVX2 and SSE3, and between two batch shapes and thread counts (docs/baselines.md)."""

FLOOR_FACTOR = 10.0
"""A KL under this many times the noise floor is noise."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How far one figure moved, from the first measurement to the second."""

    figure: Literal["kl", "ln_ppl", "top1"]
    """Its name."""
    before: float
    """Then; in the figure's own unit."""
    after: float
    """Now; in the figure's own unit."""
    moved: float
    """Mean over chunks: of ln(KL/KL0), of the difference of ln PPL, of top-1."""
    reach: float | None
    """Half the width of its interval; None where it is unbounded."""
    noise: float | None = None
    """How many of its own standard errors, over chunks, it moved; None where they show none."""
    tolerance: float
    """The most that it may move."""
    worse: bool
    """Whether it moved away from f16, tolerance and chance aside."""

    @property
    def drifted(self) -> bool:
        """Whether it moved by more than the tolerance, beyond chance."""
        return self.reach is not None and abs(self.moved) - self.reach > self.tolerance


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One cell, measured twice."""

    verdict: Literal["equal", "changed", "better", "worse", "inactive"]
    """Equal to the last bit; changed within tolerance; drifted one way or the other; or ended to
    the noise floor, as if quantization were off."""
    chunks: int
    """Chunks of the same tokens that both have."""
    changes: tuple[Change, ...]
    """By figure; none where one of them is no number, which is worse than anything."""


def drift(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    *,
    floor: float = 0.0,
    spread: float = 0.0,
) -> Drift:
    """Compare the per-chunk figures of one cell, as far as the shorter measurement goes.

    Args:
        before: ``kl``, ``ln_ppl`` and ``top1`` per chunk, as `Cell.per_chunk` has them.
        after: the same, of the same tokens in the same order.
        floor: mean KL of f16 against itself in another shape, nats; 0 where it is unknown.
        spread: relative change of KL that other machines show; 0 on the same machine.

    Raises:
        ValueError: no chunk in common.
    """
    chunks = min(len(before["kl"]), len(after["kl"]))
    if not chunks:
        raise ValueError("two measurements with no chunk in common cannot be compared")
    old = {name: np.asarray(before[name][:chunks]) for name in ("kl", "ln_ppl", "top1")}
    new = {name: np.asarray(after[name][:chunks]) for name in ("kl", "ln_ppl", "top1")}
    if not all(np.isfinite(values).all() for values in (*old.values(), *new.values())):
        return Drift(verdict="worse", chunks=chunks, changes=())  # nothing compares as fine with it
    if all(np.array_equal(old[name], new[name]) for name in old):
        return Drift(verdict="equal", chunks=chunks, changes=())
    kl0, kl = float(old["kl"].mean()), float(new["kl"].mean())
    changes = [
        _change("ln_ppl", old["ln_ppl"], new["ln_ppl"], LN_PPL_TOLERANCE),
        _change("top1", old["top1"], new["top1"], TOP1_TOLERANCE),
    ]
    if kl0 > FLOOR_FACTOR * floor and old["kl"].min() > 0:
        if kl <= FLOOR_FACTOR * floor or new["kl"].min() <= 0:
            return Drift(verdict="inactive", chunks=chunks, changes=tuple(changes))
        tolerance = max(KL_TOLERANCE, 3 * spread, floor / kl0)
        changes.insert(0, _change("kl", old["kl"], new["kl"], tolerance))
    drifted = [change for change in changes if change.drifted]
    if not drifted:
        return Drift(verdict="changed", chunks=chunks, changes=tuple(changes))
    verdict: Literal["worse", "better"] = "worse" if drifted[0].worse else "better"
    return Drift(verdict=verdict, chunks=chunks, changes=tuple(changes))


def _change(
    figure: Literal["kl", "ln_ppl", "top1"],
    old: F64,
    new: F64,
    tolerance: float,
) -> Change:
    moved = np.log(new / old) if figure == "kl" else new - old
    interval = stats.t_interval(moved, ALPHA / 4)
    before, after = float(old.mean()), float(new.mean())
    reach = interval.high - interval.figure
    worse = {"kl": after > before, "ln_ppl": abs(after) > abs(before), "top1": after < before}
    error = stats.standard_error(moved) if len(moved) > 1 else 0.0
    return Change(
        noise=interval.figure / error if error > 0 else None,
        figure=figure,
        before=before,
        after=after,
        moved=interval.figure,
        reach=reach if math.isfinite(reach) else None,
        tolerance=tolerance,
        worse=worse[figure],
    )
