"""Bytes per token against the floor on the compression."""

from __future__ import annotations

import math
from itertools import islice
from typing import NamedTuple

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import CensusRecord, Check, Placement

ROUNDING = 1e-9
"""Of two quotients of whole numbers."""

MIB = 1 << 20

PRINTED = 0.01
"""MiB: the library prints sizes with two decimals."""

BESIDE = 0.05
"""Share of what the rows take that a cache may be allocated larger or smaller: alignment of tensors
on a device. To the printed digit on every build of upstream seen."""

TABLES = 0.25
"""MiB that an allocation may hold beside its rows whatever their size: two 128 x 128 matrices of a
rotation are 0.13 in one fork, which is 7 % of a cache of 2 MiB."""


def check_footprint(census: CensusRecord, placed: Placement | None, floor: float | None) -> Check:
    """A token takes at most the bytes that the floor on the compression allows.

    Args:
        floor: bytes per token of f16/f16 over those of the pair, at least; ``None``: what the
            model's geometry says, to the byte.
    """
    held, compression = census.bytes_per_token, census.compression_measured
    if not (held and math.isfinite(held)) or compression is None or not census.understood:
        return fact(
            "footprint", "inconclusive", f"what a token should take is not known: {census.text}"
        )
    least = census.compression_expected if floor is None else floor
    allocated = _allocation(census, placed)
    small = compression >= least * (1 - ROUNDING)
    return fact(
        "footprint",
        "pass" if small and allocated.fits else "fail",
        f"a token takes {held:,.0f} bytes, {compression:.3f} times less than f16; the floor is "
        f"{least:.3f} times; {allocated.text}",
        figure=compression,
        limit=least,
    )


class _Allocation(NamedTuple):
    """What the library allocates, beside what the rows of so many cells take."""

    text: str
    fits: bool = True
    """Whether it is about as much, or nothing is known of it."""


def _allocation(census: CensusRecord, placed: Placement | None) -> _Allocation:
    if placed is None or not placed.allocated:
        return _Allocation("the library does not say what it allocates")
    said = f"the library allocates {placed.allocated:g} MiB"
    if not placed.caches or sum(one.layers for one in placed.caches) != len(census.layers):
        return _Allocation(said)
    layers = iter(census.layers)
    rows = 0.0
    for cache in placed.caches:
        of_token = sum(layer.k_row + layer.v_row for layer in islice(layers, cache.layers))
        rows += cache.cells * of_token / MIB
    cells = " + ".join(f"{cache.cells:,}" for cache in placed.caches)
    more = placed.allocated - rows
    printed = PRINTED * (len(placed.kv_buffers) + len(placed.caches))
    if abs(more) <= printed:
        return _Allocation(f"{said} for {cells} cells, as their rows take")
    word = "more" if more > 0 else "less"
    return _Allocation(
        f"{said} for {cells} cells, {abs(more):.2f} MiB {word} than their rows take",
        fits=-BESIDE * rows - printed <= more <= max(BESIDE * rows, TABLES) + printed,
    )


@check("footprint", title="footprint", test="test_kv_footprint", group="memory",
       needs="matrix", order=1, unseen="inconclusive")  # fmt: skip
def footprint(subject: Subject) -> Check | None:
    """A token takes as few bytes as the pair's types promise.

    Why: what a pair costs in quality it has to give back in memory. A port whose bytes equalled
    those of f16 has been announced as compression.

    Healthy: to the byte what the model's geometry and the blocks of the types say; and what the
    library allocates is within 5 % of its cells times that.

    A failure means: rows are padded or kept in a wider type, or more cells are allocated than are
    used; the text has the bytes.
    """
    census, first = subject.cell.census, subject.cell.checks
    if census is None or (first and first[0].verdict == "fail"):
        return None
    return check_footprint(census, subject.cell.placement, subject.compression_floor)
