"""Child side: the cache asked what it holds, against what the type's reference quantizer makes.

The first layer's K and V do not depend on the cache types. So the rows that a cell stores there
must be the rows of ``f16/f16``, written by the reference quantizer; later layers show how the
error of the attention propagation. Rows of prompts (many tokens at once) and rows of single tokens
come from different kernels and are compared apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.child import pattern
from pytest_kvquant.engine.child.codec import Codec, Codecs, nmse, rotate
from pytest_kvquant.engine.child.probe_run import (
    Pick,
    Run,
    StoredRows,
    picks,
    places,
    type_of,
)
from pytest_kvquant.engine.messages.probe import SideFigures, WrongPart
from pytest_kvquant.numerics.arrays import F32

SIDES = ("K", "V")
PATHS = ("prefill", "decode")

GRAM_ROWS = 32
"""Rows whose products with each other are compared."""

ROTATION_ROWS = 16
"""Rows that decide which rotation a build applies."""


class Where(NamedTuple):
    """A side of a layer of the cell."""

    cache: int
    place: int
    side: str
    clean: bool
    """Whether it is known to be the model's first: there is one cache, and it comes first there."""


def compare(
    runs: Sequence[tuple[Run, Run, int]],
    types: Mapping[str, Mapping[str, int]],
    codecs: Codecs,
    widths: Sequence[tuple[int, int]],
) -> Iterator[SideFigures]:
    """SideFigures of every layer, side and path; one layer is in memory at a time.

    Args:
        runs: of the cell, the same of ``f16/f16``, and how many tokens came at once.
        types: the library's types by name.
        widths: per cache, elements of a head, K and V, by the model's header; the first holds for
            caches that it does not know.

    Raises:
        Unreadable: a state is not understood, or the two do not describe the same layers.
    """
    chosen = [
        (pick, number, prompt)
        for cell, reference, prompt in runs
        for number, pick in picks(cell, reference, types)
    ]
    for column, side in enumerate(SIDES):
        # a cache whose heads are of another size is rotated by another matrix, or by none
        for cache in dict.fromkeys(number for _, number, _ in chosen):
            own = [(pick, prompt) for pick, number, prompt in chosen if number == cache]
            width = widths[cache if cache < len(widths) else 0][column]
            votes = Counter(vote for pick, _ in own for vote in _votes(pick, side, width, codecs))
            rotation = max(votes, key=lambda size: (votes[size], size)) if votes else None
            for pick, prompt in own:
                yield from _compare_side(pick, cache, side, width, codecs, prompt, rotation)


def _compare_side(
    pick: Pick,
    cache: int,
    side: str,
    width: int,
    codecs: Codecs,
    prompt: int,
    rotation: int | None,
) -> Iterator[SideFigures]:
    for place in places(pick, side):
        codec = codecs[str(type_of(pick.ours.layers[place], side))]
        rows = pick.rows(place, side, width, codec)
        clean = pick.alone and place == 0
        for path in PATHS:
            chosen = rows.positions < prompt if path == "prefill" else rows.positions >= prompt
            if chosen.any():
                part = StoredRows(rows.stored[chosen], rows.source[chosen], rows.positions[chosen])
                where = Where(cache, place, side, clean)
                yield _figures(part, path, where, codec, codecs, width, rotation)


def _figures(
    rows: StoredRows,
    path: str,
    where: Where,
    codec: Codec,
    codecs: Codecs,
    width: int,
    rotation: int | None,
) -> SideFigures:
    cache, place, side, clean = where
    grid = _grid(rows, codec, width)
    held = codec.floats(rows.stored)
    expected = codec.quantize(rotate(rows.source, rotation or 1))
    meant = codec.floats(expected)
    rounding = codec.basis(max(codec.block, min(grid.width, 256))).rounding

    def others(
        part: npt.NDArray[np.generic] | slice,
    ) -> Iterator[tuple[str, float | str, F32, F32]]:
        source = rows.source[part]
        for size in _rotations(grid.width):
            if size != rotation:
                yield "rotation", size, held[part], codec.through(rotate(source, size))
        for other in codecs.alike(codec):
            rotated = rotate(source, rotation or 1)
            yield "type", other.name, other.floats(rows.stored[part]), other.through(rotated)

    found = (
        pattern.find(held, meant, rows.positions, grid, rounding, clean=clean, others=others)
        if rotation is not None
        else None
    )
    return SideFigures(
        path=path,
        cache=cache,
        place=place,
        side=side,
        type=codec.name,
        rotation=rotation,
        rows=len(rows.stored),
        first=int(rows.positions[0]),
        last=int(rows.positions[-1]),
        heads=meant.shape[1] // grid.width or 1,
        blocks=max(1, grid.width // grid.unit),
        equal=float((rows.stored == expected).mean()),
        nmse=nmse(held, meant),
        rounding=rounding,
        explained=pattern.explained(rounding),
        gram=_gram(held, rows.source, grid.width),
        pattern=None if found is None else WrongPart(**found._asdict()),
    )


def _grid(rows: StoredRows, codec: Codec, width: int) -> pattern.Grid:
    """Heads as stored, in units of a block (of 32 elements or so where blocks are smaller)."""
    elements = rows.source.shape[1]
    padded = -(-width // codec.block) * codec.block
    wide = padded if elements % padded == 0 else width
    if elements % wide:
        wide = elements
    unit = codec.block if codec.block >= 32 else math.gcd(wide, 32)
    return pattern.Grid(wide, unit)


def _rotations(width: int) -> list[int]:
    """Sizes of Hadamard matrices that fit into a head; 1 is none."""
    return [1, *(size for size in (32, 64, 128, 256, 512) if width % size == 0)]


def _votes(pick: Pick, side: str, width: int, codecs: Codecs) -> Iterator[int]:
    """Per layer, the rotation in which it agrees with the reference quantizer, block by block.

    The median over blocks, and a vote of layers and runs: a fault in some does not sway it.
    """
    for place in places(pick, side):
        codec = codecs[str(type_of(pick.ours.layers[place], side))]
        rows = pick.rows(place, side, width, codec)
        step = max(1, len(rows.stored) // ROTATION_ROWS)
        held, source = codec.floats(rows.stored[::step]), rows.source[::step]
        grid = _grid(rows, codec, width)
        fits = {
            size: _median_share(held, codec.through(rotate(source, size)), grid.unit)
            for size in _rotations(grid.width)
        }
        best = min(fits, key=lambda size: fits[size])
        if fits[best] < 0.7:
            yield best


def _median_share(held: F32, meant: F32, unit: int) -> float:
    """Median over blocks of their squared error, as a share of their size."""
    error = np.square((held - meant).reshape(-1, unit)).sum(1)
    return float(np.median(error / np.maximum(np.square(meant.reshape(-1, unit)).sum(1), 1e-30)))


def _gram(held: F32, source: F32, width: int) -> float:
    """NMSE of the products of rows with each other, head by head; no rotation changes them."""
    step = max(1, len(held) // GRAM_ROWS)
    ours, theirs = (
        np.einsum("ahe,bhe->hab", part, part)
        for part in (
            values[::step].reshape(-1, values.shape[1] // width, width) for values in (held, source)
        )
    )
    return nmse(ours, theirs)
