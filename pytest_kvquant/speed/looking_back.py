"""A first depth, looked at again once a deeper one has shown what of it grows with the depth."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator

from pytest_kvquant.numerics import empty_cache
from pytest_kvquant.speed.methods import Method
from pytest_kvquant.speed.series import RoundSeries, SpeedFinding


def first_with_growth(
    found: Iterable[tuple[RoundSeries, SpeedFinding]], methods: Iterable[Method]
) -> Iterator[RoundSeries]:
    """The first series of each kind with what a later one of its kind says of growth, if any does.

    Args:
        found: what was timed, depths ascending.
        methods: how, in the same order: only what was timed in turn with f16 counts.
    """
    by_kind: dict[str, list[RoundSeries]] = {}
    for (one, _), method in zip(found, methods, strict=True):
        if method == "interleaved":
            by_kind.setdefault(one.kind, []).append(one)
    for first, *others in by_kind.values():
        known = (_growth(first, deeper) for deeper in others)
        if grows := next(filter(None, known), None):
            yield first._replace(grows=grows)


def _growth(first: RoundSeries, deeper: RoundSeries) -> tuple[float, float] | None:
    """By how many nanoseconds a token takes longer per token in the cache, of both sides."""
    cell, reference = (
        empty_cache.growth(
            first.tokens,
            first.depth,
            deeper.depth,
            (statistics.median(at_first) / first.tokens, statistics.median(deep) / first.tokens),
        )
        for at_first, deep in (
            (first.cell_ns, deeper.cell_ns),
            (first.reference_ns, deeper.reference_ns),
        )
    )
    return None if cell is None or reference is None else (cell, reference)
