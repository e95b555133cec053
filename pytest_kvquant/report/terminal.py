"""The terminal's view of a result: a K×V table, verdicts, one line of conditions."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_kvquant import format
from pytest_kvquant.matrix import Pair
from pytest_kvquant.report.baseline_notes import notes as baseline_notes
from pytest_kvquant.report.speed_table import speed_notes, speed_table
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.result import Result

if TYPE_CHECKING:
    import pytest

STYLES = {"pass": "green", "inconclusive": "yellow"}
"""Colour by verdict; everything else is red. The word always stands there too."""


def draw(result: Result, terminal: pytest.TerminalReporter) -> None:
    """Write the matrix and its conditions below the tests."""
    terminal.section("KV-cache matrix", sep="=", blue=True)
    width = max(terminal._tw.fullwidth, 60)
    terminal.write_line(render(result, width=width, colour=terminal.hasmarkup))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from pytest_kvquant.report.markdown import workflow_commands

        for line in workflow_commands(result):
            terminal.write_line(line)


def render(result: Result, *, width: int, colour: bool) -> str:
    """The whole section as text, with ANSI colours or without."""
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False
    )
    cells = {Pair.parse(cell.pair): cell for cell in result.cells}
    if cells:
        console.print(_table(cells))
    for cell in result.cells:
        if cell.message:
            console.print(Text(f"{cell.pair}: {cell.verdict}: {cell.message}", style="red"))
        if cell.diagnosis is not None and cell.diagnosis.verdict != "healthy":
            console.print(Text(f"{cell.pair}: {cell.diagnosis.sentence}", style="yellow"))
        for name in cell.not_significant:
            console.print(
                f"{cell.pair}: {name} would fail alone; among all gates of the run it may be chance"
            )
    if any(cell.tests for cell in result.speed):
        console.print(speed_table(result.speed, result.reference.subject))
    notes = [f"{one.pair}: {one.line}" for one in result.ceilings]
    notes += [f"for {advice.text}" for advice in result.advice]
    notes += baseline_notes(result)
    notes += [one.text for one in result.unmeasured]
    for line in [*speed_notes(result.speed), *notes]:
        console.print(Text(line))
    console.print(Text(reference_line(result)))
    console.print(Text(conditions_line(result)))
    return out.getvalue().rstrip()


def reference_line(result: Result) -> str:
    """Whether the reference was computed or reused."""
    reference = result.reference
    parts = []
    if reference.computed:
        parts.append(
            f"computed for {reference.computed} chunks "
            f"({format.seconds(reference.decode_seconds)} of llama_decode)"
        )
    if reference.reused:
        parts.append(f"reused for {reference.reused} chunks")
    if reference.damaged:
        parts.append(f"{reference.damaged} stored chunks were damaged and computed again")
    other = reference.library
    name = f"reference from {other.build}, {other.path}" if other else "f16 reference"
    if reference.by_cell:
        name = f"each cell against itself: {name}"
    return f"{name}: {', '.join(parts) or 'not needed'}"


def conditions_line(result: Result) -> str:
    """The conditions of every figure, in one line."""
    shape, library = result.settings, result.environment.library
    device = library.device
    if device != "CPU" and shape.gpu_layers >= 0:
        device = f"CPU and {shape.gpu_layers} layers on {device}"
    chunks = f"at most {shape.cap} chunks" if shape.early else f"{shape.cap} chunks"
    return (
        f"{result.model.name} · {result.corpus.name} ({shape.order}, seed {shape.seed}) · "
        f"{shape.ctx} tokens a chunk, {shape.scored} scored, {chunks} ({shape.profile}) · "
        f"llama.cpp {library.build}, bindings {library.bindings} · {device}, "
        f"{shape.threads} threads · {format.seconds(result.seconds)}"
    )


def _table(cells: dict[Pair, Cell]) -> Table:
    table = Table(title="KL · top-1 · PPL delta · verdict (rows K, columns V)", title_style="")
    table.add_column("K \\ V", no_wrap=True)
    columns = list(dict.fromkeys(pair.v for pair in cells))
    for column in columns:
        table.add_column(column, justify="right")
    for row in dict.fromkeys(pair.k for pair in cells):
        table.add_row(row, *(_entry(cells.get(Pair(row, column))) for column in columns))
    return table


def _entry(cell: Cell | None) -> Text:
    if cell is None:
        return Text("-", style="dim")
    verdict = Text(cell.verdict, style=STYLES.get(cell.verdict, "bold red"))
    if cell.quality is None:
        return verdict
    figures = cell.quality.prefill
    lines = [
        f"KL {format.kl(figures.kl_mean)}",
        format.percent(figures.top1),
        format.signed(figures.ppl_delta),
    ]
    return Text("\n").join([*map(Text, lines), verdict])
