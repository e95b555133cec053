"""``make faults``: the whole catalogue against the gates, on one page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest

from faults import catalogue
from faults.catalogue import Fault
from faults.record import Laboratory
from faults.replays import (
    PR,
    Cell,
    Detection,
    alarms_at_cap,
    interval,
    median,
    replay_fault,
    replay_matrix,
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

PLANTED_CHUNKS = 12
CLEAN_RUNS = 300
BUDGET_RUNS = 1000
FAULT_RUNS = 100
TAIL_BUDGET = 0.001
"""Share allowed over the tail bound, for the fault that only the tail shows. The default (0.0125)
is what a PASS at eight chunks can exclude."""


class Row(NamedTuple):
    """One fault at one dose."""

    fault: Fault
    dose: float
    worth: float
    found: Detection


class Page:
    """Lines, shown when the suite is done."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, *lines: str) -> None:
        self.lines += lines


@pytest.fixture(scope="module")
def page(pytestconfig: pytest.Config) -> Iterator[Page]:
    made = Page()
    yield made
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    reporter.write_line("")
    for line in made.lines:
        reporter.write_line(line)


@pytest.fixture(scope="module")
def clean(whole: Laboratory) -> dict[str, Cell]:
    return {
        str(pair): Cell.of(whole.clean(pair), whole.budgets(str(pair)))
        for pair in whole.session.pairs
    }


@pytest.fixture(scope="module")
def rows(whole: Laboratory) -> list[Row]:
    """Every fault and dose, replayed; what is not finite is caught in the chunk where it is."""
    planted = (catalogue.CONTROL, *catalogue.BY_GATES)
    every = [(fault, dose) for fault in planted for dose in fault.doses]
    made = []
    for seed, (fault, dose) in enumerate(every):
        evidence = whole.planted(fault, dose, PLANTED_CHUNKS)
        if (place := evidence.first_non_finite()) is not None:
            found = Detection(1, 1, (place[0] + 1,), ("non-finite",))
            made.append(Row(fault, dose, float("inf"), found))
            continue
        cell = Cell.of(evidence, whole.budgets(fault.pair))
        found = replay_fault(cell, FAULT_RUNS, whole.figures_in_run, seed=seed)
        made.append(Row(fault, dose, cell.worth(), found))
    return made


def test_clean_replays_raise_no_alarm(
    clean: dict[str, Cell], whole: Laboratory, page: Page
) -> None:
    runs = replay_matrix(clean, CLEAN_RUNS, whole.figures_in_run, seed=1)
    share = float(runs.chunks.mean()) / PR.cap
    easy = [cell.seen.kl.mean() <= cell.budgets["kl_mean"] / 2 for cell in clean.values()]
    chunks = float(runs.chunks[:, easy].mean())
    page.add(
        f"Clean replays of the whole matrix ({len(clean)} cells, 40 recorded chunks re-drawn)",
        f"  false alarms          {runs.false_alarms} of {runs.runs}: "
        f"{interval(runs.false_alarms, runs.runs)}",
        f"  chunks                {100 * share:.1f} % of the fixed {PR.cap} a cell",
        f"  clear passes          {sum(easy)} cells with KL at half their budget or less: "
        f"{chunks:.1f} chunks on average, {100 * runs.passed[:, easy].mean():.2f} % passed",
    )
    assert runs.false_alarms == 0
    assert share <= 0.40
    assert chunks <= 10


def test_cells_exactly_on_their_budget_rarely_fail(
    clean: dict[str, Cell], whole: Laboratory, page: Page
) -> None:
    exact = {pair: cell.on_budget() for pair, cell in clean.items()}
    alarms = alarms_at_cap(exact, BUDGET_RUNS, whole.figures_in_run, seed=2)
    page.add(
        "Every figure of every cell exactly on its budget",
        f"  runs that fail        {alarms} of {BUDGET_RUNS}: {interval(alarms, BUDGET_RUNS)}",
        "",
    )
    assert alarms <= 0.01 * BUDGET_RUNS


def test_faults_are_caught(rows: list[Row], whole: Laboratory, page: Page) -> None:
    plain, gross = (
        [row for row in rows if row.worth >= least and row.found.by != ("non-finite",)]
        for least in (3, 20)
    )
    even = [row for row in gross if not row.fault.uneven]
    faults = {row.fault.name for row in rows} - {catalogue.CONTROL.name}
    page.add(
        f"Planted faults: {len(faults)} kinds, {len(rows)} with their doses; "
        f"{PLANTED_CHUNKS} real chunks each, re-drawn {FAULT_RUNS} times; Holm over "
        f"{whole.figures_in_run} figures",
        f"  {'fault':52}{'cell':>10}{'dose':>7}{'worth':>9}  {'caught':24}{'chunks':>7}{'most':>6}"
        "  gates that fail",
        *(_line(row) for row in rows),
        "  (worth: the largest figure in budgets; chunks: median until the run fails. A fault that "
        "some chunks are without needs more of them)",
        "",
        _summary("worth 3 budgets or more", plain),
        _summary("worth 20 budgets or more", gross),
        _summary("the same, in every chunk", even),
    )
    control = next(row for row in rows if row.fault is catalogue.CONTROL)
    assert control.found.caught == 0
    assert _share(plain) >= 0.99
    assert median(_chunks(plain)) <= 13
    assert _share(gross) == 1
    assert max(_chunks(even)) <= 5


def test_a_fault_of_the_tail_alone_needs_the_tail_gate(whole: Laboratory, page: Page) -> None:
    fault = catalogue.TAIL
    page.add(
        "",
        f"A fault of the tail alone: {fault.text}; kl_tail = {TAIL_BUDGET}, other budgets as they "
        "are",
    )
    for dose in fault.doses:
        budgets = {**whole.budgets(fault.pair), "kl_tail": TAIL_BUDGET}
        cell = Cell.of(whole.planted(fault, dose, PLANTED_CHUNKS), budgets)
        found = replay_fault(cell, FAULT_RUNS, whole.figures_in_run, seed=5)
        mean = float(cell.seen.kl.mean()) / budgets["kl_mean"]
        tail = float(cell.seen.tail.mean()) / budgets["kl_tail"]
        page.add(
            f"  dose {dose:g}: mean KL {mean:.2f} budgets, tail {tail:.2f} budgets; caught "
            f"{interval(found.caught, found.runs)}, by {' '.join(found.by)}, "
            f"median {median(found.chunks):g} chunks"
        )
        assert mean < 1
        assert found.by == ("kl_tail",)
        assert found.caught >= 0.99 * found.runs


def _line(row: Row) -> str:
    found = row.found
    return (
        f"  {row.fault.text:52}{row.fault.pair:>10}{row.dose:>7g}{row.worth:>9.3g}  "
        f"{interval(found.caught, found.runs):24}{median(found.chunks):>7.3g}"
        f"{max(found.chunks, default=0):>6}  {' '.join(found.by)}"
    )


def _chunks(rows: list[Row]) -> list[int]:
    return [chunks for row in rows for chunks in row.found.chunks]


def _share(rows: list[Row]) -> float:
    return sum(row.found.caught for row in rows) / sum(row.found.runs for row in rows)


def _summary(title: str, rows: list[Row]) -> str:
    caught, runs = (sum(getattr(row.found, name) for row in rows) for name in ("caught", "runs"))
    chunks = _chunks(rows)
    return (
        f"  {title:28}{len(rows):3} faults and doses: caught {caught} of {runs}, "
        f"{interval(caught, runs)}; chunks: median {np.median(chunks):g}, most {max(chunks)}"
    )
