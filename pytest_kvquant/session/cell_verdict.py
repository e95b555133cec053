"""Checks of a cell as soon as they can be decided, and the verdict that all of it amounts to."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.answers import answers
from pytest_kvquant.checks.declaration import Needs
from pytest_kvquant.checks.declared import as_declared
from pytest_kvquant.checks.family import settled
from pytest_kvquant.checks.off_device import NAME as OFF_DEVICE
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Cell, Verdict
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.session.account import figures_per_cell
from pytest_kvquant.session.cell_inputs import CellInputs
from pytest_kvquant.session.judging import JudgedGates


def checked(subject: Subject, *needs: Needs) -> Subject:
    """The subject with the checks of its cell that can be decided once this is measured."""
    found = [one.look(subject) for one in registry.checks_that_need(*needs)]
    known = [as_declared(check, subject.declared) for check in found if check is not None]
    checks = (*subject.cell.checks, *known)
    return subject._replace(cell=msgspec.structs.replace(subject.cell, checks=checks))


def is_settled(gates: JudgedGates, inputs: CellInputs) -> bool:
    """Whether more chunks could no longer change what any gate does to the exit code."""
    if is_hopeless(gates.counted, inputs):
        return True
    figures_in_run = figures_per_cell() * inputs.cells
    decided = [settled(gate, figures_in_run) for gate in gates.counted]
    return bool(decided) and all(decided)


def is_hopeless(gates: Sequence[Gate], inputs: CellInputs) -> bool:
    """Whether a cell has failed for good and was asked to be given up then."""
    figures_in_run = figures_per_cell() * inputs.cells
    return inputs.fail_fast and any(
        gate.verdict == "fail" and settled(gate, figures_in_run) for gate in gates
    )


def judged(cell: Cell) -> Cell:
    """The cell with the verdict that its gates and checks amount to."""
    if not cell.gates:
        return cell
    failing = {check.name for check in cell.checks if check.verdict == "fail"}
    verdicts = {gate.verdict for gate in cell.gates}
    verdict: Verdict = "pass"
    if "active" in failing:
        verdict = "inactive"
    elif OFF_DEVICE in failing:
        verdict = "off-device"
    elif failing or "fail" in verdicts:
        verdict = "fail"
    elif "inconclusive" in verdicts:
        verdict = "inconclusive"
    told = answers(cell.gates, cell.checks)
    return msgspec.structs.replace(cell, verdict=verdict, kernel=told.kernel, fitness=told.fitness)
