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

SOME = ("values 1 %, 2 to 8 tokens", "last row of V not written", "rope base 1 % off",
        "oldest cell hidden at depth", "rows of V spoilt by a copy across streams",
        "values 1 % in the last stream")  # fmt: skip


def verdicts(fault: Planted, folder: Path, isolation: Isolation) -> dict[str, list[str]]:
    lab = Planting(folder, isolation=isolation)
    faulty = lab.spoilt(fault, scenarios=fault.corner in BETWEEN)
    faulty.take_reference(lab.clean(fault.model))
    reference = lab.clean(fault.model).examine(REFERENCE)
    before, after = HEALTHY
    return {
        pair: sorted(lab.failing(Pair.parse(pair), faulty, reference))
        for pair in (before, fault.pair, after)
    }


@pytest.mark.parametrize("name", SOME)
def test_the_same_verdicts_warm_and_fresh(name: str, tmp_path: Path) -> None:
    fault = next(one for one in ALL if one.name == name)
    fresh = verdicts(fault, tmp_path, "fresh")
    assert fresh[fault.pair]
    assert not fresh[HEALTHY[0]]
    assert not fresh[HEALTHY[1]]
    assert verdicts(fault, tmp_path, "warm") == fresh
