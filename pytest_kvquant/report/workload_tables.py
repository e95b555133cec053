"""The terminal's tables of further texts and of recall by distance."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from pytest_kvquant.report.workloads import recall_table, text_tables
from pytest_kvquant.results.result import Result

FEW_DISTANCES = 3
"""With fewer the verdict of the test says it all."""


def workload_tables(result: Result, *, ascii_only: bool = False) -> Iterator[tuple[str, Table]]:
    """Titles and tables: KL by text, and what is kept of f16's gain by distance."""
    recall = recall_table(result)
    deep = [recall] if recall and len(recall.columns) >= FEW_DISTANCES else []
    for found in (*text_tables(result), *deep):
        table = Table(box=box.ASCII2 if ascii_only else box.HEAVY_HEAD)
        table.add_column("K/V")
        for column in found.columns:
            table.add_column(column, justify="right")
        for pair, entries in found.lines:
            table.add_row(pair, *(entry.marked for entry in entries))
        yield found.title, table
