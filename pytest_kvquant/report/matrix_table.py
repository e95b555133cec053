"""The terminal's K×V table: figures, verdict, and in a cell that fails why; cut to a width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from pytest_kvquant import format
from pytest_kvquant.matrix import Pair
from pytest_kvquant.report.matrix_rows import tone, worst_verdict
from pytest_kvquant.report.reasons import short
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.speed import SpeedCell

STYLES = {"good": "green", "open": "yellow", "bad": "bold red"}
"""Colour by tone. The word always stands there too."""

WIDEST = 16
"""Characters of a column; reasons are broken into lines of these."""

MOST_REASONS = 2
"""Reasons in a cell; how many more there are stands below them."""


class Found(NamedTuple):
    """What is known of one pair."""

    cell: Cell | None
    speed: SpeedCell | None
    ceiling: Ceiling | None


def matrix_tables(
    result: Result, *, width: int, ascii_only: bool = False
) -> list[tuple[str, Table]]:
    """The matrix as a titled table, or several where one is wider than the screen."""
    found = _by_pair(result)
    if not found:
        return []
    columns = list(dict.fromkeys(pair.v for pair in found))
    parts = list(_fitting(found, columns, width))
    return [
        _table(found, part, number if len(parts) > 1 else None, ascii_only)
        for number, part in enumerate(parts)
    ]


def _by_pair(result: Result) -> dict[Pair, Found]:
    speeds = {one.pair: one for one in result.speed}
    ceilings = {one.pair: one for one in result.ceilings}
    return {
        Pair.parse(cell.pair): Found(cell, speeds.get(cell.pair), ceilings.get(cell.pair))
        for cell in result.cells
    }


def _fitting(
    found: Mapping[Pair, Found], columns: Sequence[str], width: int
) -> Iterator[list[str]]:
    """The columns in groups that fit the width."""
    head = max([len("K \\ V"), *(len(pair.k) for pair in found)]) + 4
    part: list[str] = []
    used = head
    for column in columns:
        lines = [line for pair, one in found.items() if pair.v == column for line, _ in _lines(one)]
        own = max(map(len, [column, *lines])) + 3
        if part and used + own > width:
            yield part
            part, used = [], head
        part.append(column)
        used += own
    yield part


def _table(
    found: Mapping[Pair, Found], columns: Sequence[str], part: int | None, ascii_only: bool
) -> tuple[str, Table]:
    title = "KL (nats) · top-1 · PPL delta · verdict (rows K, columns V)"
    if part is not None:
        title = f"V = {', '.join(columns)}" if part else f"{title}: V = {', '.join(columns)}"
    table = Table(box=box.ASCII2 if ascii_only else box.HEAVY_HEAD)
    table.add_column("K \\ V", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in dict.fromkeys(pair.k for pair in found):
        table.add_row(row, *(_entry(found.get(Pair(row, column))) for column in columns))
    return title, table


def _entry(found: Found | None) -> Text:
    if found is None:
        return Text("-", style="dim")
    return Text("\n").join(Text(line, style=style) for line, style in _lines(found))


def _lines(found: Found) -> list[tuple[str, str]]:
    """Lines of a cell with their style."""
    verdict = worst_verdict(found.cell, found.speed, found.ceiling)
    style = STYLES[tone(verdict)]
    lines: list[tuple[str, str]] = []
    if found.cell is not None and found.cell.quality is not None:
        figures = found.cell.quality.prefill
        lines = [
            (f"KL {format.kl(figures.kl_mean)}", ""),
            *_beside_healthy(found.cell),
            (format.percent(figures.top1), ""),
            (format.signed(figures.ppl_delta), ""),
        ]
    lines.append((verdict, style))
    lines += _second_answer(found.cell, verdict)
    if tone(verdict) == "bad":
        reasons = short(*found)
        for reason in reasons[:MOST_REASONS]:
            lines += [(line, style) for line in textwrap.wrap(reason, WIDEST)]
        if len(reasons) > MOST_REASONS:
            lines.append((f"+{len(reasons) - MOST_REASONS} more", style))
    return lines


def _beside_healthy(cell: Cell) -> list[tuple[str, str]]:
    """Its KL over what its types must cost on these tokens."""
    ratios = [gate.figure for gate in cell.gates if gate.name == "kl_ratio"]
    return [(f"{format.factor(ratio)} × healthy", "") for ratio in ratios]


def _second_answer(cell: Cell | None, verdict: str) -> list[tuple[str, str]]:
    """Whether the pair is fit to use here, where somebody set budgets for that and it is not what
    the verdict says already."""
    if cell is None or cell.healthy is None or cell.fitness in {verdict, "not judged"}:
        return []
    return [(f"fit: {cell.fitness}", STYLES[tone(cell.fitness)] if cell.fitness == "fail" else "")]
