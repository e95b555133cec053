"""A real checkpoint recalls what it read 2,000 tokens ago, and a cell that lost it is found there.

``make real`` fetches the model; skipped where it is not.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from real.test_real_models import FOLDER

from pytest_kvquant.results.cell import Cell
from tools.real_models import SMOLLM2
from tools.recall_table import FAULT, recalled

MODEL = FOLDER / "models" / SMOLLM2.file
pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not MODEL.is_file(), reason=f"{MODEL} is not there; `make real` fetches it"),
]


def by_distance(cell: Cell) -> dict[int, str]:
    return {one.distance: one.verdict for one in cell.recall}


def test_rows_lost_beyond_1024_tokens_show_there_and_only_there(tmp_path: Path) -> None:
    """The fault is one of q8_0/q8_0; q4_0/q4_0 beside it is healthy."""
    cells = recalled(MODEL, ("q8_0/q8_0", "q4_0/q4_0"), tmp_path, hook=FAULT)
    assert [one.distance for one in cells["f16/f16"].recall] == [256, 512, 1024, 1999]
    assert all(one.reference > 0.5 for one in cells["f16/f16"].recall)
    assert "fail" not in by_distance(cells["q4_0/q4_0"]).values()
    assert by_distance(cells["q8_0/q8_0"]) == {256: "pass", 512: "pass", 1024: "pass", 1999: "fail"}
    assert cells["q8_0/q8_0"].verdict == "fail"
    assert [gate.name for gate in cells["q8_0/q8_0"].gates if gate.verdict == "fail"] == []
