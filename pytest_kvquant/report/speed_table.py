"""The terminal's view of speed: a row per pair and depth, a column per test."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pytest_kvquant import format
from pytest_kvquant.results.speed import SpeedCell, SpeedTest, title

STYLES = {"pass": "", "inconclusive": "yellow"}
"""Colour by verdict; everything else is red. The word stands there too, unless it passed."""


def speed_table(cells: Sequence[SpeedCell], *, width: int = 200) -> Table:
    """Ratio to what the run compares with, and both speeds, of each pair at each depth.

    Args:
        width: columns of the screen; where a line does not fit, ratio and speeds stand below each
            other.
    """
    tests = [test for cell in cells for test in cell.tests]
    names = list(dict.fromkeys(_name(test) for test in tests))
    depths = sorted({test.n_depth for test in tests})
    lines = []
    for cell in cells:
        for depth in depths if cell.tests else [0]:
            found = {_name(test): test for test in cell.tests if test.n_depth == depth}
            place = f"{cell.pair} @ d{depth}" if depth else cell.pair
            lines.append((place, [_entry(found.get(name), cell) for name in names]))
    natural = max((len(place) for place, _ in lines), default=0) + 4
    natural += sum(
        3 + max([len(name), *(len(entries[at].plain) for _, entries in lines)])
        for at, name in enumerate(names)
    )
    table = Table()
    table.add_column("K/V", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for place, entries in lines:
        table.add_row(place, *(entries if natural <= width else map(_stacked, entries)))
    return table


def _stacked(entry: Text) -> Text:
    """An entry with its ratio, speeds and verdict below each other."""
    text = entry.plain.replace(" (", "\n(").replace(") ", ")\n")
    return Text(text, style=entry.style)


def speed_notes(cells: Sequence[SpeedCell]) -> list[str]:
    """What the table cannot show, in sentences."""
    lines = []
    for cell in cells:
        if cell.message:
            how = "not timed to the end" if cell.tests else "not timed"
            lines.append(f"{cell.pair}: {how}: {cell.verdict}: {cell.message}")
        lines += [f"{cell.pair}: {words(test)}" for test in cell.tests if _told(test)]
        lines += [f"{cell.pair}: {cell.gone_text(kind)}" for kind in cell.gone]
        lines += [f"{cell.pair}: the library says: {remark}" for remark in cell.remarks]
        if cell.stopped:
            lines.append(f"{cell.pair}: {cell.stopped}")
        if cell.machine.throttled:
            lines.append(f"{cell.pair}: the system held the machine back (heat or low power)")
        if cell.method_reason:
            lines.append(f"{cell.pair}: {cell.method_reason}")
    return lines


def _told(test: SpeedTest) -> bool:
    """What is undecided is told with what would decide it, see :mod:`.reasons`."""
    return test.verdict not in ("pass", "inconclusive")


def words(test: SpeedTest) -> str:
    """A test's verdict in words."""
    return f"{test.text} (declared in [expect])" if test.declared else test.text


def _name(test: SpeedTest) -> str:
    return title(test.kind, test.tokens, 0)


def _entry(test: SpeedTest | None, cell: SpeedCell) -> Text:
    if test is None:
        return Text(cell.verdict if cell.message else "-", style="dim")
    text = format.speed(test.median_ts)
    if test.ratio is not None and test.reference_ts is not None:
        text = f"{format.factor(test.ratio)} ({text}/{format.speed(test.reference_ts)})"
    if test.verdict != "pass":
        text += f" {test.verdict}"
    return Text(text, style=STYLES.get(test.verdict, "bold red"))
