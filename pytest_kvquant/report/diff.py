"""Two results side by side, as a page."""

from __future__ import annotations

from pytest_kvquant.report.compare import Comparison
from pytest_kvquant.report.html import facts, render_page, require_extra
from pytest_kvquant.report.links import anchor
from pytest_kvquant.report.matrix_rows import COLUMNS, available
from pytest_kvquant.results.result import Result


def render(found: Comparison, before: Result, after: Result) -> str:
    """The page of a comparison.

    Raises:
        RunRefused: the extra that makes pages is not installed.
    """
    require_extra("--html")
    rows = [cell.after for cell in found.cells]
    ordered = sorted(found.cells, key=lambda cell: not cell.worse)
    columns = [
        column
        for column in COLUMNS
        if column.in_any([*rows, *(cell.before for cell in found.cells)])
    ]
    return render_page(
        "diff.html.j2",
        "diff.js",
        {"rows": rows, "metrics": available(rows)},
        found=found,
        cells=ordered,
        columns=columns,
        facts=list(zip(facts(before), facts(after), strict=False)),
        anchor=anchor,
        tone=found.tone,
    )
