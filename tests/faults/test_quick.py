"""A few faults at every seam of the real engine, and that without one nothing fires."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from faults import catalogue
from faults.catalogue import Fault
from faults.record import Laboratory
from faults.replays import Cell, caught_at, draw, replay_fault, replay_matrix
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell as CellRecord
from pytest_kvquant.session.observer import Listener
from pytest_kvquant.session.run import Session

CHUNKS = 8

GROSS = [
    ("k_scale", 0.3),
    ("last_block_dropped", 4),
    ("wrong_position", 64),
    ("logits_scaled", 0.2),
    ("v_sign", 1),
]


def named(name: str) -> Fault:
    return next(fault for fault in catalogue.BY_GATES if fault.name == name)


def recorded(lab: Laboratory, fault: Fault, dose: float) -> Cell:
    return Cell.of(lab.planted(fault, dose, CHUNKS), lab.budgets(fault.pair))


def test_the_catalogue_has_what_the_field_knows() -> None:
    faults = {fault.name for fault in (*catalogue.BY_GATES, catalogue.TAIL, catalogue.SILENT)}
    assert len(faults | {catalogue.DECODE.name}) >= 25
    assert {fault.seam for fault in catalogue.BY_GATES} == {"cache", "logits", "types", "weights"}


def test_clean_cells_raise_no_alarm(small: Laboratory) -> None:
    cells = {
        str(pair): Cell.of(small.clean(pair), small.budgets(str(pair)))
        for pair in small.session.pairs
    }
    runs = replay_matrix(cells, 10, small.figures_in_run, seed=1)
    assert runs.false_alarms == 0
    assert runs.passed.all()
    assert runs.chunks.mean() <= 10


def test_taking_the_state_out_and_in_is_no_fault(small: Laboratory) -> None:
    """The detour by which faults are planted is not what the gates see."""
    cell = recorded(small, catalogue.CONTROL, 0)
    assert replay_fault(cell, 10, small.figures_in_run, seed=2).caught == 0
    assert cell.worth() < 0.5


@pytest.mark.parametrize(("name", "dose"), GROSS)
def test_a_gross_fault_is_caught_at_once(name: str, dose: float, small: Laboratory) -> None:
    cell = recorded(small, named(name), dose)
    found = replay_fault(cell, 8, small.figures_in_run, seed=3)
    assert found.caught == found.runs
    assert max(found.chunks) <= (5 if cell.worth() >= 20 else 8)


def test_more_dose_is_caught_more_often(small: Laboratory) -> None:
    fault = named("noisy")
    cells = [recorded(small, fault, dose) for dose in (0.02, 0.3)]
    faint, plain = (replay_fault(cell, 10, small.figures_in_run, seed=4) for cell in cells)
    assert cells[0].worth() < 1
    assert cells[1].worth() > 3
    assert (faint.caught, plain.caught) == (0, 10)


def test_one_nan_is_a_verdict_of_its_own(small: Laboratory) -> None:
    evidence = small.planted(named("one_nan"), 7, CHUNKS)
    assert not evidence.finite
    assert evidence.first_non_finite() is not None
    assert evidence.first_non_finite()[0] == 7  # type: ignore[index]


def test_a_quantized_reference_is_caught_by_the_f16_cell(small: Laboratory) -> None:
    """Reference and cell exchanged: KL hardly changes, so only the cell without budget sees it."""
    cell = recorded(small, named("reference_quantized"), 1)
    outcome = draw(cell, np.arange(CHUNKS), small.figures_in_run)
    assert caught_at(cell, outcome, small.figures_in_run) == 1


def test_quantization_that_is_off_passes_every_gate_but_not_the_census(
    small: Laboratory, tmp_path: Path
) -> None:
    cell = recorded(small, catalogue.SILENT, 1)
    assert cell.worth() == 0
    assert run_whole(small, catalogue.SILENT, tmp_path).verdict == "substituted"


@pytest.mark.slow
def test_a_fault_of_the_decode_path_alone_is_not_seen_by_prefill(
    small: Laboratory, tmp_path: Path
) -> None:
    cell = run_whole(small, catalogue.DECODE, tmp_path)
    verdicts = {gate.name: gate.verdict for gate in cell.gates}
    assert verdicts.pop("decode_kl_mean") == "fail"
    assert verdicts.pop("decode_kl_ratio") == "fail"
    assert "fail" not in verdicts.values()
    assert cell.verdict == "fail"


def run_whole(lab: Laboratory, fault: Fault, store: Path) -> CellRecord:
    """The cell as a run measures it, with everything beside the gates of the prefill path."""
    settings = Settings(
        chunks=4, pairs=(fault.pair,), store=store, environment=lab.hook(fault, fault.doses[0])
    )
    return Session(settings, dict(os.environ), Listener()).measure(Pair.parse(fault.pair))
