"""What the page and the summary show of a result: one row per cell, plain data, nothing computed
that the result does not carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from pytest_kvquant.checks.gate_text import failure_text
from pytest_kvquant.report.matrix_rows import LOST, TONES, Row, Tone, rows
from pytest_kvquant.report.reasons import lacks, short
from pytest_kvquant.report.repeat import command as repeat_command
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.diagnosis import LayerFigures
from pytest_kvquant.results.plausible import doubt_of
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.speed import SpeedCell


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a cell does not pass."""

    row: Row
    briefly: tuple[str, ...]
    """What failed and by how much; of an undecided one what it lacks, and what decides it."""
    reasons: tuple[str, ...]
    """Each a sentence, and below it lines of two spaces, a name, two spaces or more, a value."""
    log: str | None
    command: str
    """What to type to measure this cell again."""
    cache_map: tuple[tuple[str, tuple[LayerFigures, ...]], ...] = ()
    """What the probe found in the cache: by side and path, one entry a layer."""


def headline(result: Result) -> str:
    """The verdict of the run in one sentence.

    Names at most four of the cells that do not pass; what was not done, or not asked for, is told.
    """
    parts = [_cells_headline(result)]
    if not result.complete:
        parts.insert(0, f"{_sentence(result.incomplete_text)}.")
    if result.selection is not None and not result.selection.whole:
        parts.append(f"{_sentence(result.selection.text)}.")
    if words := doubt_of(result):
        parts.insert(0, f"{words}.")
    return " ".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cells_headline(result: Result) -> str:
    seen = rows(result)
    if not seen:
        return "No cell was measured."
    counted = Counter(row.verdict for row in seen)
    if counted["pass"] == len(seen):
        return f"All {len(seen)} cells pass." if len(seen) > 1 else "The one cell passes."
    parts = [
        f"{number} {verdict} ({some([row.pair for row in seen if row.verdict == verdict])})"
        for verdict, number in counted.most_common()
        if verdict != "pass"
    ]
    return f"{counted['pass']} of {len(seen)} cells pass; {'; '.join(parts)}."


def run_tone(result: Result) -> Tone:
    """The worst tone of the run; with ``--kv-strict``, what is undecided or unmeasured is bad.

    What is not complete is never better than bad: it has not been seen.
    """
    if not result.complete:
        return "bad"
    tones = {row.tone for row in rows(result)}
    undecided = "open" in tones or any(one.open for one in result.unmeasured)
    if "bad" in tones or (undecided and result.settings.strict):
        return "bad"
    return "open" if "open" in tones or not tones else "good"


def failures(result: Result) -> tuple[Failure, ...]:
    """The cells that do not pass, failed ones before undecided ones, each with its reasons."""
    cells = {cell.pair: cell for cell in result.cells}
    speeds = {speed.pair: speed for speed in result.speed}
    ceilings = {ceiling.pair: ceiling for ceiling in result.ceilings}
    found = [
        Failure(
            row=row,
            briefly=tuple(
                short(cells.get(row.pair), speeds.get(row.pair), ceilings.get(row.pair))
                if row.tone == "bad"
                else lacks(cells.get(row.pair), speeds.get(row.pair))
            ),
            reasons=(
                *_quality_reasons(cells.get(row.pair)),
                *_speed_reasons(speeds.get(row.pair)),
                *_ceiling_reasons(ceilings.get(row.pair)),
            ),
            log=_log(cells.get(row.pair), speeds.get(row.pair)),
            command=repeat(result, row.pair),
            cache_map=_cache_map(cells.get(row.pair)),
        )
        for row in rows(result)
        if row.tone != "good"
    ]
    return tuple(sorted(found, key=lambda failure: TONES.index(failure.row.tone), reverse=True))


def repeat(result: Result, pair: str) -> str:
    """The command that measures one cell again, under the options of the run."""
    return repeat_command(result.invocation, pair)


def _quality_reasons(cell: Cell | None) -> list[str]:
    if cell is None:
        return []
    reasons = [cell.message] if cell.message else []
    reasons += [f"{check.name}: {check.text}" for check in cell.checks if check.verdict != "pass"]
    for gate in cell.gates:
        if gate.verdict == "pass":
            continue
        first, *rest = failure_text(gate, cell.pair).splitlines()
        if gate.name in cell.not_significant:
            first += "; alone this would fail, among all gates of the run it may be chance"
        # The rule stands in the table of gates: once is enough.
        reasons.append("\n".join([first, *(line for line in rest if "  rule  " not in line)]))
    if cell.baseline is not None and cell.baseline.verdict in LOST:
        reasons.append(cell.baseline.text)
    if cell.diagnosis is not None and cell.diagnosis.verdict != "healthy":
        reasons.append(cell.diagnosis.sentence)
    return reasons


def _speed_reasons(speed: SpeedCell | None) -> list[str]:
    if speed is None:
        return []
    reasons = [speed.message] if speed.message else []
    reasons += [test.text for test in speed.tests if test.verdict != "pass" and not test.declared]
    reasons += [speed.gone_text(kind) for kind in speed.gone]
    return reasons + ([speed.stopped] if speed.stopped else [])


def _ceiling_reasons(ceiling: Ceiling | None) -> list[str]:
    return [ceiling.failure] if ceiling is not None and ceiling.verdict != "pass" else []


def _cache_map(cell: Cell | None) -> tuple[tuple[str, tuple[LayerFigures, ...]], ...]:
    figures = cell.diagnosis.figures if cell is not None and cell.diagnosis is not None else ()
    lines: dict[str, list[LayerFigures]] = {}
    for one in figures:
        lines.setdefault(f"{one.side}, {one.path}", []).append(one)
    return tuple((name, tuple(line)) for name, line in sorted(lines.items()))


def _log(cell: Cell | None, speed: SpeedCell | None) -> str | None:
    return (cell.log if cell else None) or (speed.log if speed else None)


def some(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
