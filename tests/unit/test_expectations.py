"""What [expect] declares: one matcher, and a cliff that is gone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pytest_kvquant.config.expectations import held_as, substitute
from pytest_kvquant.config.overrides import MIXED, Expect
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.speed import SpeedCell, SpeedTest
from pytest_kvquant.speed.declared import with_gone_cliffs

PAIR = Pair("turbo3", "turbo3")


def test_later_patterns_win_and_a_substitute_is_not_its_own() -> None:
    declared = {"*/turbo3": "q8_0/turbo3", "turbo3/*": MIXED}
    assert substitute(PAIR, declared) == MIXED
    assert substitute(Pair("q4_0", "turbo3"), declared) == "q8_0/turbo3"
    assert substitute(Pair("q8_0", "turbo3"), declared) is None
    assert substitute(Pair("f16", "f16"), declared) is None


def test_a_layer_without_v_holds_what_is_wanted() -> None:
    layers = [("q8_0", None), ("q8_0", None)]
    assert [*held_as(layers, PAIR, "q8_0/turbo3")] == [Pair("q8_0", "turbo3")]
    assert [*held_as(layers, PAIR, MIXED)] == [Pair("q8_0", "turbo3")]
    assert [*held_as([], PAIR, None)] == []


@pytest.mark.parametrize("bad", ["q8_0", "mixed/", "a/b/c", ""])
def test_a_substitute_that_cannot_be_meant_is_refused(bad: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="must be a pair"):
        msgspec.convert({"substituted": bad}, Expect)


def a_test(kind: str, verdict: Any, depth: int = 0) -> SpeedTest:
    fields: dict[str, Any] = {
        field.name: "" if field.type is str else 0
        for field in msgspec.structs.fields(SpeedTest)
        if field.required
    }
    tokens = {"n_prompt": 16 * (kind == "pp"), "n_gen": 4 * (kind == "tg")}
    return SpeedTest(
        **{**fields, **tokens, "n_depth": depth, "verdict": verdict, "text": f"{kind} {depth}"}
    )


def a_cell(*tests: SpeedTest, **fields: Any) -> SpeedCell:
    return with_gone_cliffs(
        SpeedCell(pair=str(PAIR), tests=tests, **fields),
        (0, 64, 128),
        lambda _, kind, depth: kind == "pp" and depth < 128,
    )


def test_a_declared_cliff_that_no_depth_shows_fails_the_pair() -> None:
    cell = a_cell(a_test("pp", "pass"), a_test("tg", "pass"), a_test("pp", "fail", 64))
    assert (cell.gone, cell.verdict) == (("pp",), "fail")
    assert "declares a pp cliff, but there is none at any depth (pp 64)" in cell.gone_text("pp")


@pytest.mark.parametrize(
    "cell",
    [
        a_cell(a_test("pp", "pass"), a_test("pp", "cliff", 64)),
        a_cell(a_test("tg", "pass")),
        a_cell(a_test("pp", "pass"), a_test("tg", "cliff"), stopped="a cliff at depth 0"),
        a_cell(a_test("pp", "pass"), a_test("pp", "inconclusive", 64)),
        a_cell(message="it crashed", verdict="crashed"),
    ],
    ids=["it is there", "not measured", "deeper ones not visited", "not decided", "not timed"],
)
def test_a_declared_cliff_that_may_be_there_is_not_gone(cell: SpeedCell) -> None:
    assert cell.gone == ()
