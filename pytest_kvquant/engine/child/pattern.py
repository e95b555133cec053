"""Child side: where stored rows differ from what they should be, and what they hold instead.

Rows are looked at in units: a quantization block, or 32 elements where a type has no blocks. Every
threshold is a multiple of what rounding alone does, so that none depends on the type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import F32

SOURCE_NMSE = 4.34e-8
"""What storing the source as f16 adds: the square of a relative rounding, averaged."""

ALLOWED = 10.0
"""Times the explained difference up to which rows count as equal; healthy rows stay under 3."""

CHOICE = 8.0
"""Times the type's rounding that one unit may be off. Where two elements are as large, a quantizer
may take either for its scale: two right answers, about twice the rounding apart."""

LEAST = 0.02
"""Share of its size by which the whole row of a later layer must be off to be looked at."""

OUTLIER = 8.0
"""Times the quiet units' difference above which a unit of a later layer stands out."""


class Grid(NamedTuple):
    """How the elements of a row lie: heads of ``width`` elements, units of ``unit``."""

    width: int
    unit: int


class RowPattern(NamedTuple):
    """The part of the rows that is wrong."""

    units: tuple[int, ...]
    """Numbers of the units within the row."""
    heads: tuple[int, ...]
    blocks: tuple[int, ...]
    """Numbers of the units within their heads."""
    first: int
    last: int
    """Positions of the first and the last wrong row."""
    share: float
    """Of the rows between them, those that are wrong."""
    holds: str
    """``zero``, ``scaled``, ``head``, ``block``, ``position``, ``rotation``, ``type`` or ``other``:
    what the rows hold there instead."""
    value: float | str | None
    """The factor; how many heads, blocks or positions away what is held belongs; the size of the
    rotation; the type."""


def explained(rounding: float) -> float:
    """NMSE between two runs of one quantizer, when the source of one was rounded to f16.

    An element crosses to the next level, an error of one step Δ, with a probability of E|e|/Δ,
    where e is the rounding of the source. With Δ² = 12 × rounding that is √(12 r)·√(2s/π), s being
    the source's NMSE, plus s itself.
    """
    return SOURCE_NMSE + float(np.sqrt(12 * rounding * 2 / np.pi * SOURCE_NMSE))


def find(
    stored: F32,
    expected: F32,
    positions: npt.NDArray[np.int32],
    grid: Grid,
    rounding: float,
    *,
    clean: bool,
    others: Callable[[slice | npt.NDArray[np.intp]], Iterator[tuple[str, float | str, F32, F32]]],
) -> RowPattern | None:
    """The wrong part of some rows, if there is one.

    Args:
        stored, expected: both read back; shape ``(rows, elements)``.
        positions: of the rows; shape ``(rows,)``.
        rounding: NMSE of the type.
        clean: whether only rounding may tell them apart. In later layers the attention's error
            has come in too, and only what stands out from the rest of the row counts.
        others: other readings of some rows: kind, value, stored and expected under that reading.
    """
    held, meant = (_in_units(values, grid) for values in (stored, expected))
    size = np.square(meant, dtype=np.float64).sum(-1)
    error = np.square(held - meant, dtype=np.float64).sum(-1)
    floor = 1e-9 * float(size.mean())
    by_unit = error.sum(0) / (size.sum(0) + floor)
    quiet = 0.0 if clean else float(np.quantile(by_unit, 0.25))
    allowed = max(ALLOWED * explained(rounding), OUTLIER * quiet)
    one = max(min(CHOICE * rounding, 0.5), allowed)
    wrong = error > one * size + floor
    units = np.flatnonzero((wrong.sum(0) >= 2) & (by_unit > allowed))
    if not len(units) and clean and error.sum() > allowed * size.sum():
        units = np.flatnonzero(by_unit > allowed)
        wrong[:, units] = True
    whole = not len(units) and not clean and error.sum() > LEAST * size.sum()
    if whole:
        units = np.arange(wrong.shape[1])
        wrong[:] = True
    if not len(units):
        return None
    rows = np.flatnonzero(wrong[:, units].any(1))
    places = positions[rows]
    between = (positions >= places.min()) & (positions <= places.max())
    limit = min(0.5, max(4 * rounding, 2 * allowed, 3 * quiet))
    if whole:  # what the attention brought in stays; a fault of the whole row stands far above it
        limit = min(limit, 0.1 * float(error.sum() / (size.sum() + floor)))
    holds, value = _foreign(others(rows), units, grid, limit)
    if holds == "other":
        holds, value = _held(held, meant, rows, units, grid, limit)
    if whole and holds == "other":
        return None
    per_head = max(1, grid.width // grid.unit)
    return RowPattern(
        tuple(int(unit) for unit in units),
        tuple(sorted({int(unit * grid.unit // grid.width) for unit in units})),
        tuple(sorted({int(unit % per_head) for unit in units})),
        int(places.min()),
        int(places.max()),
        len(rows) / int(between.sum()),
        holds,
        value,
    )


def _foreign(
    others: Iterator[tuple[str, float | str, F32, F32]],
    units: npt.NDArray[np.intp],
    grid: Grid,
    limit: float,
) -> tuple[str, float | str | None]:
    """Whether another reading makes the wrong part right."""
    for kind, value, read, wanted in others:
        got, want = (_in_units(values, grid)[:, units] for values in (read, wanted))
        if want.any() and _residual(got, want) < limit:
            return kind, value
    return "other", None


def _in_units(values: F32, grid: Grid) -> F32:
    return values.reshape(len(values), -1, grid.unit)


def _residual(held: F32, meant: F32) -> float:
    size = float(np.square(meant, dtype=np.float64).sum())
    return float(np.square(held - meant, dtype=np.float64).sum()) / size if size else np.inf


def _held(
    held: F32,
    meant: F32,
    rows: npt.NDArray[np.intp],
    units: npt.NDArray[np.intp],
    grid: Grid,
    limit: float,
) -> tuple[str, float | str | None]:
    """What the wrong part holds: nothing, its own values times a factor, or another part's."""
    part, own = held[rows][:, units], meant[rows][:, units]
    if np.square(part).sum() <= 1e-6 * np.square(own).sum():
        return "zero", None
    factor = float((part * own).sum(dtype=np.float64) / np.square(own, dtype=np.float64).sum())
    if abs(factor - 1) > 0.002 and factor and _residual(part / factor, own) < limit:
        return "scaled", round(factor, 3)
    if (away := _moved(part, meant[rows], units, limit)) is not None:
        per_head = max(1, grid.width // grid.unit)
        if away % per_head == 0:
            return "head", away // per_head
        return "block", away
    for shift in (1, -1, 2, -2):
        source = rows + shift
        inside = (source >= 0) & (source < len(meant))
        if inside.sum() > 2 and _residual(part[inside], meant[source[inside]][:, units]) < limit:
            return "position", shift
    return "other", None


def _moved(part: F32, meant: F32, units: npt.NDArray[np.intp], limit: float) -> int | None:
    """How many units away what the wrong units hold belongs, if they agree on it."""
    products = np.einsum("rue,rve->uv", part, meant, optimize=True, dtype=np.float64)
    held = np.square(part, dtype=np.float64).sum((0, 2))
    size = np.square(meant, dtype=np.float64).sum((0, 2))
    residual = (held[:, None] - 2 * products + size[None]) / np.maximum(size[None], 1e-30)
    best = residual.argmin(1)
    found = residual[np.arange(len(units)), best] < limit
    away = (best - units)[found]
    if found.mean() < 0.5 or not away.all():
        return None
    values, counts = np.unique(away, return_counts=True)
    # where two heads are exchanged, half of the units go up and half go down
    return int(values[counts.argmax()]) if counts.max() >= 0.4 * len(away) else None
