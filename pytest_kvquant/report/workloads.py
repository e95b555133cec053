"""Further texts, disturbed text and recall by distance as plain tables, for every kind of view."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pytest_kvquant import format
from pytest_kvquant.report.matrix_rows import Tone, tone
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.recall import RecallPoint
from pytest_kvquant.results.result import Result


class Entry(NamedTuple):
    """A figure of a table, and how its verdict reads."""

    text: str = "–"
    tone: Tone = "good"

    @property
    def marked(self) -> str:
        """The figure with a mark where it does not pass."""
        return self.text + {"good": "", "open": " ?", "bad": " !"}[self.tone]


class WorkloadTable(NamedTuple):
    """A table with a line per pair."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Entry, ...]], ...]
    """A pair and its figures."""


def text_tables(result: Result) -> Iterator[WorkloadTable]:
    """KL by text, and what KL grows to where text is disturbed; each where it was measured."""
    names = list(dict.fromkeys(one.corpus for cell in result.cells for one in cell.texts))
    if names:
        having = [cell for cell in result.cells if cell.texts]
        lines = ((cell.pair, (_own(cell), *_texts(cell, names))) for cell in having)
        yield WorkloadTable("KL by text, nats", (result.corpus.name, *names), tuple(lines))
    ways = list(dict.fromkeys(one.disturbance for cell in result.cells for one in cell.robustness))
    if ways:
        having = [cell for cell in result.cells if cell.robustness]
        found = ((cell.pair, tuple(_disturbed(cell, ways))) for cell in having)
        yield WorkloadTable("Disturbed text: its KL over that of clean text", (*ways,), (*found,))


def recall_table(result: Result) -> WorkloadTable | None:
    """What is kept of f16's gain by distance; None where it was not measured."""
    distances = sorted({point.distance for cell in result.cells for point in cell.recall})
    if not distances:
        return None
    lines = []
    for cell in result.cells:
        known = {point.distance: _kept(point) for point in cell.recall}
        if known:
            lines.append((cell.pair, tuple(known.get(one, Entry()) for one in distances)))
    return WorkloadTable(
        "Recall: share of f16's gain that is kept, by distance in tokens",
        tuple(f"{distance:,}" for distance in distances),
        tuple(lines),
    )


def _own(cell: Cell) -> Entry:
    return Entry(format.kl(cell.quality.prefill.kl_mean)) if cell.quality else Entry()


def _texts(cell: Cell, names: list[str]) -> Iterator[Entry]:
    known = {one.corpus: one for one in cell.texts}
    for one in map(known.get, names):
        if one is None:
            yield Entry()
        else:
            figure = format.kl(one.quality.kl_mean) if one.quality else "NaN"
            yield Entry(figure, tone(one.verdict))


def _disturbed(cell: Cell, ways: list[str]) -> Iterator[Entry]:
    known = {one.disturbance: one for one in cell.robustness}
    for one in map(known.get, ways):
        if one is None:
            yield Entry()
        else:
            figure = "no ratio" if one.ratio is None else format.ratio(one.ratio)
            yield Entry(figure, tone(one.verdict))


def _kept(point: RecallPoint) -> Entry:
    if point.verdict == "cannot":
        return Entry("f16 cannot")
    figure = "NaN" if point.kept is None else f"{point.kept:.0%}"
    return Entry(figure, tone(point.verdict))
