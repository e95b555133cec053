"""One cell, in as many processes as it takes to believe it, and where its seconds went."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.checks.excluded import reviewed
from pytest_kvquant.engine.parent.timesheet import by_part, since
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell, Timing
from pytest_kvquant.session import diagnosing
from pytest_kvquant.session.cell import attempt
from pytest_kvquant.session.cell_inputs import CellInputs, Measured


def measure(
    pair: Pair,
    budgets: Budgets,
    expected: str | None,
    inputs: CellInputs,
    on_chunk: Callable[[int], None],
    doubt: Callable[[Cell], str] = lambda _: "",
) -> Measured:
    """Measure one cell; the death of its process is a verdict, not an exception.

    Where a process is kept for several cells, a verdict other than pass, and a pass that there is
    an objection to, are confirmed in a fresh one before they are given.

    Args:
        expected: the pair that the configuration says it is substituted by, if any.
        on_chunk: told how many chunks are complete.
        doubt: why the figures may not be the cell's own, in words; empty if nothing says so.

    Raises:
        RunRefused: the reference cannot be stored.
    """
    workers = inputs.task.workers
    before = workers.timesheet.seconds()
    with workers.timesheet.scope("cells"):
        again = ""
        if workers.keeps:
            measured = attempt(
                workers.kept(), pair, budgets, expected, inputs, on_chunk, workers.objection
            )
            again = measured.objection or _doubtful(measured.cell) or doubt(measured.cell)
            if again and inputs.examiner is not None:
                inputs.examiner.forget(pair)
        if again or not workers.keeps:
            with workers.doubting():
                measured = attempt(workers.fresh(), pair, budgets, expected, inputs, on_chunk)
        cell = measured.cell
        if cell.verdict in ("fail", "non-finite"):
            with workers.timesheet.scope("explanation"):
                explained = diagnosing.explain(inputs.prober, pair, cell.diagnosis)
            cell = msgspec.structs.replace(cell, diagnosis=reviewed(explained, cell))
    spent = since(before, workers.timesheet.seconds())
    timing = msgspec.structs.replace(
        cell.timing or Timing(), wall=sum(spent.values()), parts=by_part(spent, "cells")
    )
    process = "fresh" if again else workers.isolation
    cell = msgspec.structs.replace(cell, timing=timing, process=process, again=again)
    return Measured(cell, measured.evidence)


def _doubtful(cell: Cell) -> str:
    """That only a fresh process may give this verdict, in words; empty for a pass."""
    return f"its verdict was '{cell.verdict}'" if cell.verdict != "pass" else ""
