"""Speed and memory on a simulated Mac."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from metal.conftest import Mac
from pytest_kvquant.config.overrides import Expect
from pytest_kvquant.machine import strain
from pytest_kvquant.machine.strain import Condition
from pytest_kvquant.matrix import Pair
from pytest_kvquant.speed import ceiling as search

MIXED = Pair("f16", "q8_0")
SLOW = {"COPY_MBPS": 30}
"""Copies of the cache between the device and the CPU cost what they cost on a Mac, and more."""

SPEED = {"speed": "on", "rounds": 6, "sample": 0.004}


@pytest.mark.parametrize("declared", [False, True])
def test_a_cliff_is_shown_with_its_cause(mac: Mac, declared: bool) -> None:
    expect = {} if declared else {str(MIXED): Expect(off_device=False)}
    speed = mac.session(f"f16/f16 {MIXED}", faults=SLOW, expect=expect, **SPEED).speed
    cell = speed.measure(MIXED)
    assert cell.off_device.startswith("FLASH_ATTN_EXT of f16/q8_0 at head size 128 runs on the CPU")
    slow = [test for test in cell.tests if test.verdict == "cliff"]
    assert slow
    assert all(test.text.endswith(cell.off_device) for test in slow)
    assert all(test.declared is declared for test in slow)
    assert cell.verdict == ("pass" if declared else "cliff")


def test_samples_after_a_silent_failure_are_none(mac: Mac) -> None:
    faults = {"FAIL": 40, "FAIL_CACHE": "q8_0", "FAIL_TOKENS": 1}
    cell = mac.session("f16/f16 q8_0/q8_0", faults=faults, **SPEED).speed.measure(
        Pair("q8_0", "q8_0")
    )
    assert cell.verdict == "out-of-memory"
    assert cell.message is not None
    assert "Insufficient Memory" in cell.message
    assert not [test for test in cell.tests if test.kind == "tg"]


def test_a_context_whose_last_batch_failed_does_not_work(mac: Mac) -> None:
    """Without the proof of life its allocation alone would count."""
    faults = {"FAIL": 1, "FAIL_CACHE": "q8_0", "FAIL_TOKENS": 256}
    speed = mac.session(
        "q8_0/q8_0", faults=faults, ceiling_max=8192, ubatch=256, batch=256, **SPEED
    ).speed
    found = speed.ceiling(Pair("q8_0", "q8_0"))
    assert found.tokens == 0
    assert {one.outcome for one in found.attempts} == {"out-of-memory"}


def test_the_search_climbs_from_below_and_stops_where_the_machine_suffers(
    mac: Mac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device gives more than its working set, and the system begins to swap."""
    told = tmp_path / "pressure"

    def swapping() -> Condition:
        over = float(told.read_text(encoding="ascii") or 0) if told.exists() else 0.0
        return Condition(8 << 30, swapped_out=int(over * 2**20))

    monkeypatch.setattr(strain.Strain.__init__, "__defaults__", (None, swapping))
    speed = mac.session(
        "q8_0/q8_0", faults={"WORKING_SET": 80, "PRESSURE": told}, ceiling_max=1 << 17,
        memory_limit=4.0, **SPEED,
    ).speed  # fmt: skip
    found = speed.ceiling(Pair("q8_0", "q8_0"))
    tried = [one.context for one in found.attempts]
    outcomes = [one.outcome for one in found.attempts]
    assert tried == sorted(tried)
    assert all(after <= 2 * before for before, after in itertools.pairwise(tried))
    assert outcomes == ["fits"] * (len(tried) - 1) + ["strained"]
    assert found.tokens == tried[-2]
    assert "made the machine suffer and was stopped" in found.text


def test_room_counts_weights_and_other_programs(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_kvquant.speed import methods

    setup = mac.session("f16/f16", faults={"WORKING_SET": 20_000}, **SPEED).speed.setup
    monkeypatch.setattr(methods.memory, "available", lambda: 1_000_000_000)
    assert methods.free_memory(setup) == 900_000_000
    assert methods.room_beside_weights(setup) == 900_000_000 - setup.model.size
    assert search._may_swap(setup)
