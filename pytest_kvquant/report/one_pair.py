"""One pair of a result in full, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvquant import format
from pytest_kvquant.checks.gate_text import failure_text
from pytest_kvquant.errors import ResultError
from pytest_kvquant.report import matrix_rows, view
from pytest_kvquant.report.reasons import lacks, short
from pytest_kvquant.report.roof_lines import percent, rate
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.speed import SpeedCell


def one_pair(result: Result, pair: str) -> str:
    """Figures, gates, checks, speeds, and the command that measures it again.

    Raises:
        ResultError: the result has no such pair; names those that it has.
    """
    rows = {row.pair: row for row in matrix_rows.rows(result)}
    if pair not in rows:
        raise ResultError(f"This result has no pair '{pair}'. It has: {', '.join(rows)}.")
    row = rows[pair]
    cell = next((one for one in result.cells if one.pair == pair), None)
    speed = next((one for one in result.speed if one.pair == pair), None)
    ceiling = next((one for one in result.ceilings if one.pair == pair), None)
    lines = [f"{pair}: {row.verdict}"]
    lines += [f"  failed: {words}" for words in short(cell, speed, ceiling)]
    lines += [f"  undecided: {words}" for words in lacks(cell, speed)]
    lines += ["", "figures"]
    lines += [
        f"  {column.label:<20} {column.show(row):>14}"
        for column in matrix_rows.COLUMNS
        if column.in_any([row])
    ]
    if cell is not None:
        lines += _of_cell(cell)
    if speed is not None:
        lines += _of_speed(speed)
    if ceiling is not None:
        lines += ["", f"largest context: {ceiling.failure}"]
    lines += ["", f"again: {view.repeat(result, pair)}"]
    return "\n".join(lines) + "\n"


def _of_cell(cell: Cell) -> Iterator[str]:
    if cell.message:
        yield from ("", cell.message)
    if cell.gates:
        yield from ("", "gates")
        for gate in cell.gates:
            first, *rest = failure_text(gate, cell.pair).splitlines()
            yield f"  {first.removeprefix(f'{cell.pair}: ')}"
            yield from (f"  {line}" for line in rest)
    if cell.checks:
        yield from ("", "checks")
        wide = max(len(one.name) for one in cell.checks)
        yield from (f"  {one.name:<{wide}} {one.verdict:<12} {one.text}" for one in cell.checks)
    if cell.diagnosis is not None:
        yield from ("", f"diagnosis: {cell.diagnosis.sentence}")
    if cell.baseline is not None:
        yield from ("", f"baseline: {cell.baseline.text}")
    if cell.log:
        yield from ("", "the end of the library's log")
        yield from (f"  {line}" for line in cell.log.splitlines())


def _of_speed(speed: SpeedCell) -> Iterator[str]:
    yield from ("", "speed (ratio to f16; tok/s of both in the same rounds)")
    for test in speed.tests:
        ratio = "–" if test.ratio is None else format.factor(test.ratio)
        reference = "–" if test.reference_ts is None else format.speed(test.reference_ts)
        both = f"{format.speed(test.median_ts)}/{reference}"
        yield f"  {test.title:<16} {ratio:>6}  {both:>16}  {test.verdict}: {test.text}"
        if test.roof is not None:
            yield (
                f"  {'':<16} {percent(test.roof.share):>6} of the {format.speed(test.roof.ts)} "
                f"tok/s that {rate(test.roof)} permit"
            )
    if speed.message:
        yield f"  {speed.message}"
