"""What the terminal says of a run's time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pytest_kvquant.report.time_lines import rest_line, saved_line
from pytest_kvquant.results.cell import Cell, Timing
from pytest_kvquant.results.result import Result


def drawn(cell: Cell, chunks: int, **timing: Any) -> Cell:
    return msgspec.structs.replace(
        cell, digests=tuple(map(str, range(chunks))), timing=Timing(**timing)
    )


@pytest.fixture
def early(result: Result) -> Result:
    settings = msgspec.structs.replace(result.settings, early=True, cap=32)
    return msgspec.structs.replace(result, settings=settings)


def test_what_a_cell_takes_once_is_not_saved(early: Result) -> None:
    opening = {"start": 1.0, "model": 2.0, "decode": 4.0}
    cells = tuple(drawn(cell, 8, prefill=7.0, parts=opening) for cell in early.cells[:2])
    line = saved_line(msgspec.structs.replace(early, cells=cells))
    assert line == "2 of 2 cells were decided after 8 of at most 32 chunks: about 24.0 s saved"


def test_of_a_fixed_count_nothing_is_said(result: Result) -> None:
    settings = msgspec.structs.replace(result.settings, early=False)
    assert not saved_line(msgspec.structs.replace(result, settings=settings))


def test_more_than_a_tenth_beside_decoding_is_named(result: Result) -> None:
    assert result.timing is not None
    parts = {"decode": 80.0, "waiting": 12.0, "start": 7.5, "other": 0.5}
    timing = msgspec.structs.replace(result.timing, wall=100.0, parts=parts)
    line = rest_line(msgspec.structs.replace(result, timing=timing))
    assert line == "20% of 1 min 40 s was not decoding: waiting 12%, start 8%"
    parts = {"decode": 91.0, "waiting": 9.0}
    timing = msgspec.structs.replace(result.timing, wall=100.0, parts=parts)
    assert not rest_line(msgspec.structs.replace(result, timing=timing))
