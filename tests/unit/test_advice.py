"""Advice: from pairs that did not fail, never a dominated one, with its figures."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.advice import advise
from pytest_kvquant.numerics.metrics import Quality
from pytest_kvquant.report.result import Cell, CensusRecord, QualitySection
from pytest_kvquant.report.speed import SpeedCell, SpeedTest

POSITIVE = st.floats(0.01, 10)
FIGURES = st.tuples(POSITIVE, POSITIVE, POSITIVE, POSITIVE)


def a_quality(kl: float) -> Quality:
    return Quality(**{**{name: 0 for name in Quality.__struct_fields__}, "kl_mean": kl})


def a_cell(pair: str, kl: float, compression: float, verdict: Any = "pass") -> Cell:
    census = CensusRecord(
        layers=(), bytes_per_token=1000 / compression, expected_bytes_per_token=1000,
        compression=1.0, kind="agree", text="",
    )  # fmt: skip
    quality = QualitySection(prefill=a_quality(kl))
    return Cell(pair=pair, verdict=verdict, quality=quality, census=census)


def a_test(kind: str, ratio: float, depth: int) -> SpeedTest:
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(SpeedTest):
        if field.required:
            fields[field.name] = "" if field.type is str else 0
    tokens = {"n_prompt": 512, "n_gen": 0} if kind == "pp" else {"n_prompt": 0, "n_gen": 128}
    return SpeedTest(
        **{**fields, **tokens, "ratio": ratio, "n_depth": depth, "verdict": "pass",
           "samples_ts": (1.0,)}
    )  # fmt: skip


def a_speed(pair: str, pp: float, tg: float, verdict: str = "pass", depth: int = 0) -> SpeedCell:
    tests = (a_test("pp", pp, depth), a_test("tg", tg, depth))
    return SpeedCell(pair=pair, tests=tests, verdict=verdict)


@given(st.lists(FIGURES, min_size=2, max_size=8))
def test_no_named_pair_is_beaten_in_every_figure(figures: list[tuple[float, ...]]) -> None:
    cells = [a_cell(f"a/{n}", kl, size) for n, (kl, size, _, _) in enumerate(figures)]
    speeds = [a_speed(f"a/{n}", pp, tg) for n, (_, _, pp, tg) in enumerate(figures)]
    advice = advise(cells, speeds)
    assert [one.workload for one in advice] == ["coding agent", "RAG or batch", "maximum context"]
    for one in advice:
        assert one.best == one.candidates[0].pair
        for candidate in one.candidates:
            kl, size, pp, tg = figures[int(candidate.pair[2:])]
            assert not any(
                other[0] < kl and other[1] > size and other[2] > pp and other[3] > tg
                for other in figures
            )


def test_a_pair_that_failed_is_never_named() -> None:
    cells = [
        a_cell("f16/f16", 0.0, 1), a_cell("q8_0/q8_0", 0.001, 1.9),
        a_cell("q4_0/q4_0", 0.0001, 3.5, verdict="fail"), a_cell("f16/q4_0", 0.0001, 3.6),
        a_cell("q5_1/q5_1", 0.0001, 3.6, verdict="inconclusive"),
    ]  # fmt: skip
    speeds = [
        a_speed("f16/f16", 1, 1), a_speed("q8_0/q8_0", 0.9, 0.95), a_speed("q4_0/q4_0", 2, 2),
        a_speed("f16/q4_0", 2, 2, verdict="cliff"), a_speed("q5_1/q5_1", 2, 2),
    ]  # fmt: skip
    for one in advise(cells, speeds):
        assert {candidate.pair for candidate in one.candidates} <= {"f16/f16", "q8_0/q8_0"}
    assert advise(cells, speeds)[2].best == "q8_0/q8_0"
    assert "KL 0.00100, 1.90× smaller, pp 0.90 of f16" in advise(cells, speeds)[2].text


def test_pairs_are_compared_at_one_depth() -> None:
    cells = [a_cell("f16/f16", 0.0, 1), a_cell("q8_0/q8_0", 0.001, 1.9), a_cell("a/b", 0.0, 9)]
    speeds = [
        a_speed("f16/f16", 1, 1, depth=8192),
        a_speed("q8_0/q8_0", 0.9, 0.9, depth=8192),
        a_speed("a/b", 9, 9),
    ]
    for one in advise(cells, speeds):
        assert {candidate.depth for candidate in one.candidates} == {8192}


def test_without_a_choice_there_is_no_advice() -> None:
    assert advise([a_cell("f16/f16", 0.0, 1)], [a_speed("f16/f16", 1, 1)]) == ()
    assert advise([], []) == ()


def test_without_speed_quality_and_memory_decide() -> None:
    cells = [a_cell("f16/f16", 0.0, 1), a_cell("q4_0/q4_0", 0.01, 3.5)]
    assert [one.figures for one in advise(cells, [])] == [("kl", "compression")] * 3
