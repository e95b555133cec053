"""The terminal's view of a result: notes, speed, conditions, last the K×V table and one line."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.text import Text

from pytest_kvquant.machine.escape import inert
from pytest_kvquant.report.baseline_notes import notes as baseline_notes
from pytest_kvquant.report.closing import closing_line
from pytest_kvquant.report.coverage import in_lines as coverage_lines
from pytest_kvquant.report.markdown import workflow_commands
from pytest_kvquant.report.matrix_rows import tone
from pytest_kvquant.report.matrix_table import STYLES, matrix_tables
from pytest_kvquant.report.off_device import off_device_lines
from pytest_kvquant.report.reasons import last_line, undecided_lines
from pytest_kvquant.report.roof_lines import roof_lines
from pytest_kvquant.report.run_lines import conditions_line, reference_line, sittings_line
from pytest_kvquant.report.speed_table import speed_notes, speed_table
from pytest_kvquant.report.time_lines import time_lines
from pytest_kvquant.report.view import run_tone
from pytest_kvquant.report.workload_tables import workload_tables
from pytest_kvquant.results.plausible import doubt_of
from pytest_kvquant.results.result import Result

if TYPE_CHECKING:
    import pytest

NARROWEST = 60
"""Columns below which lines are wrapped by the terminal itself."""


def draw(
    result: Result,
    terminal: pytest.TerminalReporter,
    *,
    objections: Sequence[str] = (),
    planned: int = 0,
    failed: int = 0,
    page: str = "",
) -> None:
    """Write the section of the matrix: the last thing that a run prints.

    Args:
        objections: what failed the run beside its pairs.
        planned: pairs of the run.
        failed: tests of the run that failed.
        page: where the page lies, for annotations.
    """
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in workflow_commands(result, page):
            terminal.write_line(line)
    terminal.section("KV-cache matrix", sep="=", blue=True)
    width = max(terminal._tw.fullwidth, NARROWEST)
    text = render(
        result,
        width=width,
        colour=terminal.hasmarkup,
        ascii_only=not _draws_boxes(terminal),
        objections=objections,
        planned=planned,
        failed=failed,
    )
    terminal.write_line(text)


def _draws_boxes(terminal: pytest.TerminalReporter) -> bool:
    """Whether lines of boxes can be shown there."""
    encoding = getattr(terminal._tw._file, "encoding", None) or "utf-8"
    return "utf" in encoding.lower() and os.environ.get("TERM") != "dumb"


def render(
    result: Result,
    *,
    width: int,
    colour: bool,
    ascii_only: bool = False,
    objections: Sequence[str] = (),
    planned: int = 0,
    failed: int = 0,
) -> str:
    """The whole section as text, with ANSI colours or without."""
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False,
        markup=False, emoji=False,
        legacy_windows=False, color_system="standard" if colour else None,
    )  # fmt: skip
    if run_tone(result) == "bad":  # else the last line has them
        for text in objections:
            console.print(Text(text, style=STYLES["bad"]), soft_wrap=True)
    for text, style in _notes(result):
        console.print(Text(text, style=style), soft_wrap=False)
    if any(cell.tests for cell in result.speed):
        console.print(Text(f"Speed over {result.reference.subject} (ratio; tok/s of both)"))
        table = speed_table(result.speed, width=width)
        if ascii_only:
            table.box = box.ASCII2
        console.print(table)
        for line in roof_lines(result.speed):
            console.print(Text(line))
    for title, table in workload_tables(result, ascii_only=ascii_only):
        console.print(Text(title))
        console.print(table)
    for line in time_lines(result):
        console.print(Text(line))
    console.print(Text(reference_line(result)))
    console.print(Text(conditions_line(result)))
    for title, table in matrix_tables(result, width=width, ascii_only=ascii_only):
        console.print(Text(title))
        console.print(table)
    line = closing_line(result, objections=objections, planned=planned, failed=failed)
    style = STYLES["bad" if objections or failed else run_tone(result)]
    console.print(Text(line, style=style), soft_wrap=True)
    lines = [line.rstrip() for line in out.getvalue().rstrip().splitlines()]
    return inert("\n".join(lines))


def _notes(result: Result) -> list[tuple[str, str]]:
    """What the tables cannot show, a line each with its style; what fails first."""
    failed: list[tuple[str, str]] = []
    for cell in result.cells:
        if cell.message:
            said = last_line(cell)
            library = f" The library's last line: {said}" if said else ""
            text = f"{cell.pair}: {cell.verdict}: {cell.message}{library}"
            failed.append((text, STYLES[tone(cell.verdict)]))
        if cell.diagnosis is not None and cell.diagnosis.verdict != "healthy":
            failed.append((f"{cell.pair}: {cell.diagnosis.sentence}", "yellow"))
    undecided = [(line, "yellow") for line in undecided_lines(result.cells, result.speed)]
    plain = [f"{one.pair}: {one.line}" for one in result.ceilings]
    plain += off_device_lines(result)
    plain += [f"for {advice.text}" for advice in result.advice]
    plain += baseline_notes(result)
    plain += [one.text for one in result.unmeasured]
    plain += coverage_lines(result)
    plain += [] if result.complete else [result.incomplete_text]
    if result.selection is not None and not result.selection.whole:
        plain.append(result.selection.text)
    if len(result.sittings) > 1:
        plain.append(sittings_line(result))
    notes = speed_notes(result.speed)
    if words := doubt_of(result):
        failed.insert(0, (words, STYLES["bad"]))
    return [*failed, *undecided, *((line, "") for line in [*notes, *plain])]
