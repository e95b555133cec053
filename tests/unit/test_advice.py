"""Advice: from pairs that did not fail, never a dominated one, with its figures."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.numerics.metrics import Quality
from pytest_kvquant.report.advice import advise
from pytest_kvquant.results.advice import Advice
from pytest_kvquant.results.baseline import BaselineRecord
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell, CensusRecord, QualitySection
from pytest_kvquant.results.speed import SpeedCell, SpeedTest
from pytest_kvquant.results.texts import TextFigures

POSITIVE = st.floats(0.01, 10)
FIGURES = st.tuples(POSITIVE, POSITIVE, POSITIVE, POSITIVE)


def a_quality(kl: float) -> Quality:
    return Quality(**{**{name: 0 for name in Quality.__struct_fields__}, "kl_mean": kl})


def a_cell(pair: str, kl: float, compression: float, verdict: Any = "pass") -> Cell:
    census = CensusRecord(
        layers=(), bytes_per_token=1000 / compression, expected_bytes_per_token=1000,
        compression_expected=1.0, kind="agree", text="",
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


def a_ceiling(pair: str, tokens: int, verdict: Any = "pass") -> Ceiling:
    return Ceiling(
        pair=pair, tokens=tokens, bound=tokens, predicted=tokens, memory=1, bytes_per_token=1,
        attempts=(), seconds=0.0, verdict=verdict,
    )  # fmt: skip


FOUR = [
    a_cell("f16/f16", 0.0, 1), a_cell("q8_0/q8_0", 0.001, 1.9), a_cell("q4_0/q4_0", 0.001, 3.5),
    a_cell("q5_1/q5_1", 0.001, 2.7),
]  # fmt: skip


def named(advice: tuple[Advice, ...]) -> set[str]:
    return {candidate.pair for one in advice for candidate in one.candidates}


@pytest.mark.parametrize("drift", ["better", "worse", "inactive", "damaged"])
def test_a_pair_that_drifted_from_its_baseline_is_never_named(drift: Any) -> None:
    lost = BaselineRecord(verdict=drift, path="b.json", text="it moved")
    cells = [*FOUR[:2], msgspec.structs.replace(FOUR[2], baseline=lost)]
    assert named(advise(cells, [])) == {"f16/f16", "q8_0/q8_0"}
    kept = msgspec.structs.replace(lost, verdict="equal")
    cells = [*FOUR[:2], msgspec.structs.replace(FOUR[2], baseline=kept)]
    assert "q4_0/q4_0" in named(advise(cells, []))


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_a_pair_under_its_context_floor_is_never_named(verdict: Any) -> None:
    ceilings = [a_ceiling(cell.pair, 1000) for cell in FOUR[:2]]
    ceilings.append(a_ceiling("q4_0/q4_0", 9000, verdict))
    assert named(advise(FOUR[:3], [], ceilings)) == {"f16/f16", "q8_0/q8_0"}


def test_each_pair_against_itself_tells_nothing_about_the_best() -> None:
    assert advise(FOUR, [], by_cell=True) == ()


def test_the_most_context_is_what_was_found_where_it_was_searched() -> None:
    tokens = {"f16/f16": 1000, "q8_0/q8_0": 1900, "q4_0/q4_0": 1400, "q5_1/q5_1": 2600}
    ceilings = [a_ceiling(pair, count) for pair, count in tokens.items()]
    coding, _, most = advise(FOUR, [], ceilings)
    assert (coding.best, coding.figures) == ("q4_0/q4_0", ("kl", "compression"))
    assert (most.best, most.figures) == ("q5_1/q5_1", ("kl", "context"))
    assert "2,600 tokens fit" in most.text
    assert advise(FOUR, [], ceilings[:3])[2].figures == ("kl", "compression")


def test_pairs_are_compared_at_one_depth() -> None:
    cells = [a_cell("f16/f16", 0.0, 1), a_cell("q8_0/q8_0", 0.001, 1.9), a_cell("a/b", 0.0, 9)]
    speeds = [
        a_speed("f16/f16", 1, 1, depth=8192),
        a_speed("q8_0/q8_0", 0.9, 0.9, depth=8192),
        a_speed("a/b", 9, 9),
    ]
    for one in advise(cells, speeds):
        assert {candidate.depth for candidate in one.candidates} == {8192}


def test_f16_is_no_advice_for_the_longest_context() -> None:
    """KL 0 outweighed the size: it named f16/f16, which holds the fewest tokens of all."""
    cells = [a_cell("f16/f16", 0.0, 1), a_cell("q4_0/q4_0", 0.09, 3.5)]
    coding, _, most = advise(cells, [])
    assert most.best == "q4_0/q4_0"
    assert [one.pair for one in most.candidates] == ["q4_0/q4_0"]
    assert coding.best == "f16/f16"
    assert "for a quantized cache loses more than it gains here; also q4_0/q4_0" in coding.text


def test_without_a_choice_there_is_no_advice() -> None:
    assert advise([a_cell("f16/f16", 0.0, 1)], [a_speed("f16/f16", 1, 1)]) == ()
    assert advise([], []) == ()


def test_without_speed_quality_and_memory_decide() -> None:
    cells = [a_cell("f16/f16", 0.0, 1), a_cell("q4_0/q4_0", 0.01, 3.5)]
    assert [one.figures for one in advise(cells, [])] == [("kl", "compression")] * 3


def test_an_agent_s_pair_is_chosen_by_the_text_that_is_likest_to_its_work() -> None:
    def on(text: str, kl: float) -> TextFigures:
        return TextFigures(corpus=text, verdict="pass", quality=a_quality(kl))

    cells = [a_cell("a/1", 0.001, 2.0), a_cell("a/2", 0.002, 2.0)]
    code = "code (Python 3.13.1)"
    cells = [
        msgspec.structs.replace(cell, texts=(on("chat", 0.01), on(code, kl)))
        for cell, kl in zip(cells, (0.2, 0.003), strict=True)
    ]
    advice = {one.workload: one for one in advise(cells, [])}
    agent, rag = advice["coding agent"], advice["RAG or batch"]
    assert (agent.best, agent.corpus) == ("a/2", code)
    assert f"KL on {code}" in agent.text
    assert (rag.best, rag.corpus) == ("a/1", "")
