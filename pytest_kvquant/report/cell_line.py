"""A finished pair in a line: its verdict, why, and its figures."""

from __future__ import annotations

from pytest_kvquant import format
from pytest_kvquant.report.matrix_rows import worst_verdict
from pytest_kvquant.report.reasons import joined, short
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.speed import SpeedCell


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
