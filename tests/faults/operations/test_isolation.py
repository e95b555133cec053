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

EVERYWHERE = {"unwatched"}
"""Operations of faults that live in all pairs."""

STAYING = {"a row of K spoilt by a restore"}
"""Faults that stay in the process once they were met, and show in other tests there: a run confirms
what is red in a fresh one, and says that."""


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


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_the_same_verdicts_warm_and_fresh(fault: Planted, tmp_path: Path) -> None:
    fresh = verdicts(fault, tmp_path, "fresh")
    assert fresh[fault.pair]
    if fault.operation not in EVERYWHERE and fault.pair != str(REFERENCE):
        assert not any(fresh[pair] for pair in HEALTHY if pair != fault.pair)
    warm = verdicts(fault, tmp_path, "warm")
    if fault.name in STAYING:
        fresh, warm = ({pair: bool(found[pair]) for pair in found} for found in (fresh, warm))
    assert warm == fresh
