"""Every view survives matrices that nobody thinks of first."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from pytest_kvquant.report import markdown
from pytest_kvquant.report.advice import advise
from pytest_kvquant.report.closing import closing_line
from pytest_kvquant.report.html import render
from pytest_kvquant.report.snapshot import of_result
from pytest_kvquant.report.terminal import render as render_terminal
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.result import Result

replace = msgspec.structs.replace


def one_pair(whole: Result) -> Result:
    return replace(whole, cells=whole.cells[:1], speed=whole.speed[:1])


def all_failed(whole: Result) -> Result:
    cells = tuple(
        replace(cell, verdict="fail", gates=tuple(replace(g, verdict="fail") for g in cell.gates))
        for cell in whole.cells
    )
    return replace(whole, cells=cells)


def all_crashed(whole: Result) -> Result:
    lost = tuple(
        Cell(pair=cell.pair, verdict="crashed", message="It died.", log="a\nggml_abort: <b>\n")
        for cell in whole.cells
    )
    return replace(whole, cells=lost, speed=(), floor=None)


SHAPES: dict[str, Callable[[Result], Result]] = {
    "nothing": lambda whole: replace(whole, cells=(), speed=(), floor=None),
    "one pair": one_pair,
    "all failed": all_failed,
    "all crashed": all_crashed,
    "no speed": lambda whole: replace(whole, speed=()),
    "speed only": lambda whole: replace(whole, cells=(), floor=None),
    "a hole": lambda whole: replace(whole, cells=(whole.cells[0], whole.cells[-1])),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_view_draws_it(matrix: Callable[..., Result], shape: str) -> None:
    whole = matrix(types=("f16", "q8_0", "turbo4"), depths=2)
    result = SHAPES[shape](whole)
    result = replace(result, advice=advise(result.cells, result.speed))
    page = render(result)
    assert "How" in page or not result.cells
    assert markdown.summary(result)
    for width in (60, 200):
        text = render_terminal(result, width=width, colour=False)
        assert text.splitlines()[-1] == closing_line(result)
    assert of_result(result).figures.keys() == {
        *(cell.pair for cell in result.cells), *(one.pair for one in result.speed),
    }  # fmt: skip


def test_the_words_of_the_last_line(matrix: Callable[..., Result]) -> None:
    whole = matrix(types=("f16", "q8_0"))
    assert closing_line(whole) == "PASS · 4 of 4 pairs pass · nothing to do"
    recall = Check(name="recall", verdict="inconclusive", text="97% of f16")
    last = replace(whole.cells[-1], checks=(*whole.cells[-1].checks, recall))
    told = replace(whole, cells=(*whole.cells[:-1], last))
    assert closing_line(told).endswith("4 of 4 pairs pass · what stayed undecided stands above")
    assert closing_line(whole, planned=6).startswith("INCOMPLETE · 4 of 6 pairs pass · 2 not")
    assert closing_line(whole, failed=1) == "FAIL · 4 of 4 pairs pass · 1 test failed, see above"
    assert closing_line(whole, objections=["x is y"]) == "FAIL · 4 of 4 pairs pass · x is y"
    failed = closing_line(all_failed(whole))
    assert failed.startswith("FAIL · 0 of 4 pairs pass · f16/f16: ")
    assert "(and 3 more); again: pytest --kv-matrix" in failed
    crashed = closing_line(all_crashed(whole))
    assert "f16/f16: crashed" in crashed
    nothing = SHAPES["nothing"](whole)
    assert closing_line(nothing) == "no pair was measured · no test asked for figures"
    stopped = replace(whole, complete=False, interruption="stopped by SIGTERM")
    assert closing_line(stopped).startswith("INCOMPLETE · 4 of 4 pairs pass · incomplete: ")
    assert "stopped by SIGTERM" in closing_line(
        replace(nothing, complete=False, interruption="stopped by SIGTERM")
    )
    assert closing_line(nothing, failed=2).startswith("FAIL · no pair was measured · 2 tests")


def test_the_librarys_last_words_are_in_the_summary(matrix: Callable[..., Result]) -> None:
    text = render_terminal(all_crashed(matrix(types=("f16",))), width=200, colour=False)
    assert "f16/f16: crashed: It died. The library's last line: ggml_abort: <b>" in text
