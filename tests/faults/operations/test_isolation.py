"""Planted operations give the same verdicts in a process that is kept and in fresh ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.operations.catalogue import ALL, Planted
from faults.operations.laboratory import BETWEEN, Planting
from pytest_kvquant.engine.parent.workers import Isolation
from pytest_kvquant.matrix import REFERENCE, Pair

pytestmark = pytest.mark.faults

HEALTHY = ("q4_0/q8_0", "f16/q8_0")
"""Measured before and after the spoilt pair, in the same process where one is kept."""


def verdicts(fault: Planted, folder: Path, isolation: Isolation) -> dict[str, list[str]]:
    lab = Planting(folder, isolation=isolation)
    faulty = lab.spoilt(fault, scenarios=fault.corner in BETWEEN)
    if fault.pair != str(REFERENCE):
        faulty.take_reference(lab.clean(fault.model))
    reference = lab.clean(fault.model).examine(REFERENCE)
    before, after = HEALTHY
    return {
        pair: sorted(lab.failing(Pair.parse(pair), faulty, reference))
        for pair in (before, fault.pair, after)
    }


def red(found: dict[str, list[str]]) -> set[str]:
    return {pair for pair, failing in found.items() if failing}


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_the_same_verdicts_warm_and_fresh(fault: Planted, tmp_path: Path) -> None:
    """Which tests fail may differ where a fault stays in the kept process: whatever is red there is
    confirmed in a fresh one, and that is what a run says.
    """
    fresh = verdicts(fault, tmp_path, "fresh")
    warm = verdicts(fault, tmp_path, "warm")
    assert red(warm) == red(fresh)
    assert fault.pair in red(fresh)
