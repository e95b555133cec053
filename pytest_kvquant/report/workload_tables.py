"""The terminal's tables of further texts and of recall by distance."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from pytest_kvquant import format
from pytest_kvquant.results.recall import RecallPoint
from pytest_kvquant.results.result import Result

FEW_DISTANCES = 3
"""With fewer the verdict of the test says it all."""


def workload_tables(result: Result, *, ascii_only: bool = False) -> Iterator[tuple[str, Table]]:
    """Titles and tables: KL by text, and what is kept of f16's gain by distance."""
    names = list(dict.fromkeys(one.corpus for cell in result.cells for one in cell.texts))
    if names:
        table = _table(["K/V", result.corpus.name, *names], ascii_only)
        for cell in result.cells:
            known = {one.corpus: one for one in cell.texts}
            own = cell.quality.prefill.kl_mean if cell.quality else None
            row = [known[name].quality for name in names if name in known]
            if own is not None and len(row) == len(names):
                kls = [own, *(one.kl_mean if one else None for one in row)]
                table.add_row(cell.pair, *("NaN" if kl is None else format.kl(kl) for kl in kls))
        yield "KL by text", table
    distances = list(dict.fromkeys(p.distance for cell in result.cells for p in cell.recall))
    if len(distances) >= FEW_DISTANCES:
        table = _table(["K/V", *(f"{distance:,}" for distance in distances)], ascii_only)
        for cell in result.cells:
            if cell.recall:
                table.add_row(cell.pair, *map(_kept, cell.recall))
        yield "Recall: share of f16's gain that is kept, by distance in tokens", table


def _kept(point: RecallPoint) -> str:
    kept, verdict = point.kept, point.verdict
    if verdict == "cannot":
        return "f16 cannot"
    return "NaN" if kept is None else f"{kept:.0%}" + (" !" if verdict == "fail" else "")


def _table(columns: list[str], ascii_only: bool) -> Table:
    table = Table(box=box.ASCII2 if ascii_only else box.HEAVY_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table
