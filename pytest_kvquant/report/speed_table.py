"""The terminal's view of speed: a row per pair, a column per test."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pytest_kvquant.report import format
from pytest_kvquant.report.speed import SpeedCell, SpeedTest

STYLES = {"pass": "", "inconclusive": "yellow"}
"""Colour by verdict; everything else is red. The word stands there too, unless it passed."""


def speed_table(cells: Sequence[SpeedCell], against: str) -> Table:
    """tok/s and ratio to what the run compares with, of each pair at each test."""
    table = Table(title=f"Speed: tok/s (share of {against} in the same minutes)", title_style="")
    table.add_column("K/V", no_wrap=True)
    titles = list(dict.fromkeys(test.title for cell in cells for test in cell.tests))
    for title in titles:
        table.add_column(title, justify="right")
    for cell in cells:
        tests = {test.title: test for test in cell.tests}
        table.add_row(cell.pair, *(_entry(tests.get(title), cell) for title in titles))
    return table


def speed_notes(cells: Sequence[SpeedCell]) -> list[str]:
    """What the table cannot show, in sentences."""
    lines = []
    for cell in cells:
        if cell.message:
            how = "not timed to the end" if cell.tests else "not timed"
            lines.append(f"{cell.pair}: {how}: {cell.verdict}: {cell.message}")
        lines += [f"{cell.pair}: {words(test)}" for test in cell.tests if test.verdict != "pass"]
        lines += [f"{cell.pair}: the library says: {remark}" for remark in cell.remarks]
        if cell.stopped:
            lines.append(f"{cell.pair}: {cell.stopped}")
        if cell.machine.throttled:
            lines.append(f"{cell.pair}: the system held the machine back (heat or low power)")
        if cell.method_reason:
            lines.append(f"{cell.pair}: {cell.method_reason}")
    return lines


def words(test: SpeedTest) -> str:
    """A test's verdict in words."""
    return f"{test.text} (declared in [expect])" if test.declared else test.text


def _entry(test: SpeedTest | None, cell: SpeedCell) -> Text:
    if test is None:
        return Text(cell.verdict if cell.message else "-", style="dim")
    text = format.speed(test.median_ts)
    if test.ratio is not None:
        text += f" ({format.factor(test.ratio)})"
    if test.verdict != "pass":
        text += f" {test.verdict}"
    return Text(text, style=STYLES.get(test.verdict, "bold red"))
