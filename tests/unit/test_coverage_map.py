"""The map of corners: fine, failed, unsupported, not covered; and two results beside each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_kvquant.report.coverage import compare, in_lines
from pytest_kvquant.report.coverage_map import CoverageMap, MapColumn, coverage_map
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.kernels import CornerRecord, Examination, ScenarioRecord
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.zoo import ZooCell


def corner(tokens: int, length: int, *, failed: int = 0, head: int = 128, mask: str = "causal"):
    return CornerRecord(
        operation="attention", k_type="q8_0", v_type="q4_0", head_k=head, head_v=head, group=2,
        tokens=tokens, length=length, mask=mask, backend="CPU", nodes=4, failed=failed, ratio=0.5,
        error=0, worst=0,
    )  # fmt: skip


def scenario(name: str, verdict: str) -> ScenarioRecord:
    return ScenarioRecord(name=name, title=name, verdict=verdict, text="")


def result(*corners: CornerRecord, **more: Any) -> Result:
    found = Examination(
        level="standard", corners=corners,
        scenarios=(scenario("shift_head", "crashed"), scenario("copy_unified", "pass"),
                   scenario("roll_back", "unsupported")),
    )  # fmt: skip
    ladder = Check(name="ladder", verdict="fail", text="")
    cells = (Cell(pair="q8_0/q4_0", verdict="fail", kernels=found, checks=(ladder,)),
             Cell(pair="q4_0/f16", verdict="unsupported"))  # fmt: skip
    return cast(Result, SimpleNamespace(**{"cells": cells, "zoo": (), **more}))


@pytest.fixture
def drawn() -> CoverageMap:
    found = coverage_map(
        result(corner(1, 256), corner(1, 512, failed=1), corner(4, 512), corner(5, 512, failed=2))
    )
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("group", "label", "state"),
    [
        ("query tokens, up to 256 cells", "1", "fine"),
        ("query tokens, up to 256 cells", "2", "not covered"),
        ("query tokens, up to 4,096 cells", "1", "failed"),
        ("query tokens, up to 4,096 cells", "3–8", "failed"),
        ("query tokens, more cells", "1", "not covered"),
        ("head size", "128", "failed"),
        ("head size", "64", "not covered"),
        ("mask", "sinks", "not covered"),
        ("around attention", "batch sizes", "failed"),
        ("around attention", "cache writes", "not covered"),
        ("cache operations", "shift", "failed"),
        ("cache operations", "copy", "fine"),
        ("cache operations", "roll back", "unsupported"),
        ("cache operations", "slots", "not covered"),
    ],
)
def test_a_corner_of_a_pair(drawn: CoverageMap, group: str, label: str, state: str) -> None:
    line = next(one for one in drawn.lines if one.pair == "q8_0/q4_0")
    assert line.states[drawn.columns.index(MapColumn(group, label))] == state


def test_a_pair_that_the_library_does_not_make_is_unsupported_everywhere(
    drawn: CoverageMap,
) -> None:
    line = next(one for one in drawn.lines if one.pair == "q4_0/f16")
    assert set(line.states) == {"unsupported"}


def test_a_head_size_of_the_zoo_and_one_that_nobody_knew() -> None:
    kernels = Examination(level="minimal", corners=(corner(1, 64, head=72, mask="causal+sinks"),))
    fields = {
        "architecture": "llama", "like": "", "group": 2, "features": (), "text": "",
        "pair": "q8_0/q4_0",
    }  # fmt: skip
    zoo = (
        ZooCell(member="a", head_k=72, head_v=72, verdict="pass", kernels=kernels, **fields),
        ZooCell(member="b", head_k=80, head_v=80, verdict="unsupported", **fields),
    )
    found = coverage_map(result(zoo=zoo))
    assert found is not None
    states = dict(zip(found.columns, found.lines[0].states, strict=True))
    assert states[MapColumn("head size", "72")] == "fine"
    assert states[MapColumn("head size", "80")] == "unsupported"
    assert states[MapColumn("mask", "sinks")] == "fine"


def test_without_an_examination_there_is_no_map() -> None:
    blank = cast(Result, SimpleNamespace(cells=(Cell(pair="f16/f16", verdict="pass"),), zoo=()))
    assert coverage_map(blank) is None
    assert in_lines(blank) == []


def test_three_lines_say_how_much_of_the_map_is_empty(drawn: CoverageMap) -> None:
    lines = in_lines(result(corner(1, 256), corner(4, 512, failed=1)))
    assert len(lines) == 3
    assert "1 wrong" in lines[0]
    assert "fail: shift_head" in lines[1]
    assert lines[2].startswith("not covered: ")
    assert f"of {2 * len(drawn.columns)} corners" in lines[2]


@pytest.mark.parametrize(
    ("counts", "said"),
    [((13, 9, 11), "; 9 to 13 of 17 scenarios, which other pairs of a type play"),
     ((9, 9), "; 9 of 17 scenarios, which other pairs of a type play"), ((), "")],
)  # fmt: skip
def test_what_pairs_share_out_is_told_once(counts: tuple[int, ...], said: str) -> None:
    cells = tuple(
        Cell(
            pair="q8_0/q4_0", verdict="pass",
            kernels=Examination(
                level="standard", corners=(corner(1, 256),), left_out=("further layers",),
                elsewhere=None if count is None else (count, 17),
            ),
        )
        for count in (*counts, None)
    )  # fmt: skip
    told = in_lines(result(cells=cells))[2]
    assert told.endswith(f"; further layers{said}")


def test_corners_that_one_result_has_and_the_other_lacks() -> None:
    text, lacking = compare(result(corner(1, 256), corner(3, 512)), result(corner(1, 256)))
    assert lacking == 1
    assert "q8_0/q4_0: attention, types q8_0/q4_0, heads 128/128x2, 3 query tokens" in text
    assert compare(result(corner(1, 256)), result(corner(1, 256), corner(3, 512)))[1] == 0
