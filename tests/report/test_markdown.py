"""The summary and the annotations: verdict first, honest about what is left out, never markup."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from support.matrix import recalled

from pytest_kvquant.report.markdown import (
    LIMIT,
    MOST_ANNOTATIONS,
    fenced,
    plain,
    summary,
    workflow_commands,
)
from pytest_kvquant.results.baseline import BaselineRecord, BaselinesRecord
from pytest_kvquant.results.result import Result

from .conftest import Run


def _crash(result: Result, message: str = "SIGSEGV") -> Result:
    cells = tuple(
        msgspec.structs.replace(cell, verdict="crashed", message=message, quality=None, gates=())
        for cell in result.cells
    )
    return msgspec.structs.replace(result, cells=cells)


def test_a_run_appends_to_the_summary_of_its_step(run: Run) -> None:
    text = (run.folder / "step.md").read_text()
    assert text.startswith("# of another step\n## ")
    assert "`q8_0/q4_0`" in text


def test_a_run_marks_its_failed_cells_on_github(run: Run) -> None:
    marked = [line for line in run.output.splitlines() if line.startswith("::error ")]
    failed = [cell for cell in run.result.cells if cell.verdict == "fail"]
    assert len(marked) == len(failed)


def test_verdict_first(matrix: Callable[..., Result]) -> None:
    small = matrix(types=("f16", "q8_0"))
    lines = summary(_crash(small)).splitlines()
    assert lines[0] == "## ❌ KV-cache matrix"
    assert "0 of 4 cells pass; 4 crashed" in lines[2]
    assert "All 4 cells pass" in summary(small)


def test_an_undecided_pair_takes_a_line_and_a_failed_one_says_by_how_much(
    matrix: Callable[..., Result],
) -> None:
    small = matrix(types=("f16", "q8_0"))
    replace = msgspec.structs.replace
    first, *rest = small.cells[3].gates
    opened = replace(
        small.cells[2], verdict="inconclusive", gates=(replace(first, verdict="inconclusive"),)
    )
    twice = replace(first, verdict="fail", figure=2 * first.budget)
    failed = replace(small.cells[3], verdict="fail", gates=(twice, *rest))
    text = summary(replace(small, cells=(*small.cells[:2], opened, failed)))
    (line,) = [line for line in text.splitlines() if line.startswith("⚠️ `q8_0/f16`")]
    assert "open after" in line
    assert "--kv-" in line
    assert "❌ `q8_0/q8_0` **fail**: KL 2.0 × budget\n" in text
    assert text.index("❌ `q8_0/q8_0`") < text.index("⚠️ `q8_0/f16`")


def test_what_changed_since_the_baseline(matrix: Callable[..., Result]) -> None:
    small = matrix(types=("f16", "q8_0"))
    record = BaselineRecord(verdict="worse", path="b.json", text="mean KL rose by 9 %")
    drifted = msgspec.structs.replace(small.cells[3], baseline=record)
    text = summary(
        msgspec.structs.replace(
            small, cells=(*small.cells[:3], drifted), baselines=BaselinesRecord(folder="b")
        )
    )
    assert "1 drifted (q8\\_0/q8\\_0)" in text
    assert "### What changed since the baseline\n\n- q8\\_0/q8\\_0: mean KL rose by 9 %" in text
    cells = tuple(msgspec.structs.replace(cell, baseline=None) for cell in small.cells)
    without = msgspec.structs.replace(small, cells=cells, baselines=None)
    assert "What changed" not in summary(without)


def test_any_matrix_fits(matrix: Callable[..., Result]) -> None:
    types = tuple(f"type{n}" for n in range(24))
    text = summary(_crash(matrix(types=types), message="ünïcode " * 400))
    assert len(text.encode()) <= LIMIT
    shown = text.count("**crashed**\n")
    assert f"_{24 * 24 - shown} more cells that do not pass do not fit here" in text
    assert "576 crashed" in text
    assert text.rstrip().endswith("</details>")
    assert text.count("<details>") == text.count("</details>") == 1


def test_recall_and_further_texts_have_tables(matrix: Callable[..., Result]) -> None:
    whole = matrix(types=("f16", "q8_0"))
    lost = msgspec.structs.replace(whole.cells[3], recall=(recalled(256, 0.3, "fail"),))
    text = summary(msgspec.structs.replace(whole, cells=(*whole.cells[:3], lost)))
    assert "| `q8_0/q8_0` | ❌ 30% | – | – | – | – |" in text
    assert "<summary>KL by text, nats</summary>" in text
    assert "| pair | typing errors |" in text


def test_a_foe_stays_text(result: Result) -> None:
    model = msgspec.structs.replace(result.model, name="<img src=x>|[x](y)\n# h `c` @all")
    text = summary(msgspec.structs.replace(result, model=model))
    assert "<img" not in text
    assert r"\[x\](y)" in text
    assert "\n# h" not in text
    assert plain("a*b_c|d") == r"a\*b\_c\|d"


def test_a_log_cannot_leave_its_block() -> None:
    assert fenced("a\n```\nb").startswith("````text\n")


def test_annotations_are_few_and_count_the_rest(matrix: Callable[..., Result]) -> None:
    lines = workflow_commands(_crash(matrix(), message="at 100%\nin llama_decode"))
    assert len(lines) == MOST_ANNOTATIONS
    assert lines[0].startswith("::error title=f16/f16%3A crashed::at 100%25%0Ain llama_decode%0A")
    assert "40 more cells fail" in lines[-1]
    assert not any("\n" in line for line in lines)


def test_nothing_to_mark(matrix: Callable[..., Result]) -> None:
    assert workflow_commands(matrix()) == []
