"""Which chunks a fault is in."""

from __future__ import annotations

import pytest

from pytest_kvquant.checks.uneven import uneven
from pytest_kvquant.results.cell import Cell, HealthyRecord


def cell(*times: float, healthy: bool = True) -> Cell:
    must = tuple(0.01 * (at + 1) for at in range(len(times)))
    record = HealthyRecord(
        kl_mean=0.01, decode_kl_mean=None, chunks=len(must), computed=0, per_chunk=must, seconds=0.0
    )
    kl = tuple(one * base for one, base in zip(times, must, strict=True))
    return Cell(
        pair="q8_0/q8_0", verdict="fail", per_chunk={"kl": kl}, healthy=record if healthy else None
    )


def test_a_fault_of_some_chunks_is_told_with_them() -> None:
    said = uneven(cell(1.02, 30, 4, 5, 8))

    assert said.startswith("chunk 0 costs as healthy ones, chunks 1, 2, 3 and 1 more cost up to 30")


@pytest.mark.parametrize("times", [(1.0, 1.1, 0.9), (4.0, 5.0, 9.0), (1.0, 1.5, 2.5)])
def test_chunks_that_are_alike_say_nothing(times: tuple[float, ...]) -> None:
    assert uneven(cell(*times)) == ""


def test_without_a_healthy_cell_there_is_nothing_to_say() -> None:
    assert uneven(cell(1.0, 30.0, healthy=False)) == ""
