"""A finished pair in a line: its verdict, why, and its figures."""

from __future__ import annotations

import msgspec

from pytest_kvquant import format
from pytest_kvquant.report.matrix_rows import worst_verdict
from pytest_kvquant.report.reasons import joined, short
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.speed import SpeedCell


class PairLine(msgspec.Struct, frozen=True, kw_only=True):
    """A finished pair as a line of JSON, for programs that follow a run."""

    run: str
    """When the run began, UTC, ISO 8601: lines of several runs may stand in one file."""
    pair: str
    """As `K/V`."""
    number: int
    """Which of the run's pairs it is, from 1 on, as they were finished."""
    of: int
    """Pairs of the run."""
    seconds: float
    """Since the pair before it was finished."""
    verdict: str
    """The gravest of quality, speed and context."""
    reasons: tuple[str, ...] = ()
    """What failed, in a few words each."""
    kl_mean: float | None = None
    """Mean KL, nats per token."""
    top1: float | None = None
    """Share of tokens with the same likeliest successor."""
    ppl_delta: float | None = None
    """PPL over that of f16 on the same tokens, difference."""
    speed: dict[str, float] = {}
    """Test to speed over that of f16, as `tg128 @ d8192`."""
    context: int | None = None
    """Tokens of the largest context that works."""


def as_line(
    cell: Cell | None,
    speed: SpeedCell | None,
    ceiling: Ceiling | None,
    *,
    run: str,
    pair: str,
    number: int,
    of: int,
    seconds: float,
) -> PairLine:
    """The same as :func:`in_a_line`, for programs."""
    figures = cell.quality.prefill if cell is not None and cell.quality is not None else None
    return PairLine(
        run=run,
        pair=pair,
        number=number,
        of=of,
        seconds=round(seconds, 3),
        verdict=worst_verdict(cell, speed, ceiling),
        reasons=tuple(short(cell, speed, ceiling)),
        kl_mean=figures.kl_mean if figures is not None else None,
        top1=figures.top1 if figures is not None else None,
        ppl_delta=figures.ppl_delta if figures is not None else None,
        speed={
            test.title: test.ratio
            for test in (speed.tests if speed is not None else ())
            if test.ratio is not None
        },
        context=ceiling.tokens if ceiling is not None else None,
    )


def in_a_line(cell: Cell | None, speed: SpeedCell | None, ceiling: Ceiling | None) -> str:
    """Verdict, the gravest reason, figures."""
    if cell is None and speed is None and ceiling is None:
        return "not measured"
    verdict = worst_verdict(cell, speed, ceiling)
    reasons = short(cell, speed, ceiling)
    parts = [f"{verdict}: {joined(reasons, 1)}" if reasons else verdict]
    if cell is not None and cell.quality is not None:
        figures = cell.quality.prefill
        parts.append(f"KL {format.kl(figures.kl_mean)}")
        parts.append(f"top-1 {format.percent(figures.top1)}")
    deepest: dict[str, str] = {}
    for test in speed.tests if speed is not None else ():
        if test.ratio is not None:
            deepest[test.kind] = f"{test.title} {format.factor(test.ratio)} × f16"
    return "  ".join([*parts, *deepest.values()])
