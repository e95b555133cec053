"""Why a pair does not pass, in few words, and what would decide what is undecided."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from pytest_kvquant.report.reasons import by_how_much, lacks, short
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.gate import Gate


@pytest.fixture
def gate() -> Callable[..., Gate]:
    def make(**changes: object) -> Gate:
        whole = Gate(
            name="kl_mean", verdict="fail", figure=0.031, low=None, high=None, budget=0.01,
            unit="nats", chunks=8, e_value=1e4, p_value=1e-4, alpha=0.01, level=0.0025,
            decided_at=4, census=False, chunks_needed=None, rule="r",
        )  # fmt: skip
        return msgspec.structs.replace(whole, **changes)

    return make


def test_by_how_much(gate: Callable[..., Gate]) -> None:
    assert by_how_much(gate()) == "KL 3.1 × budget"
    assert by_how_much(gate(name="decode_kl_mean")) == "decode KL 3.1 × budget"
    assert by_how_much(gate(figure=0.010001)) == "KL 1.01 × budget"
    assert by_how_much(gate(figure=-0.5, name="ln_ppl_ratio")) == "PPL 50 × budget"
    assert by_how_much(gate(budget=0.0)) == "KL not identical"


def test_the_gravest_comes_first_and_chance_is_left_out(gate: Callable[..., Gate]) -> None:
    gates = (gate(), gate(name="top1_flips", figure=0.5), gate(name="kl_tail", figure=9.0))
    check = Check(name="contents", verdict="fail", text="t", figure=12.0, limit=1.0)
    cell = Cell(
        pair="a/b", verdict="fail", gates=gates, not_significant=("kl_tail",), checks=(check,)
    )
    assert short(cell, None, None) == [
        "flips 50 × budget",
        "KL 3.1 × budget",
        "contents 12 × limit",
    ]


def test_what_is_undecided_names_the_option_that_decides_it(gate: Callable[..., Gate]) -> None:
    undecided = gate(verdict="inconclusive", figure=0.008, decided_at=None)
    for needed, option in ((40, "--kv-chunks 40"), (4000, "--kv-profile nightly"),
                           (None, "--kv-profile nightly")):  # fmt: skip
        cell = Cell(
            pair="a/b",
            verdict="inconclusive",
            gates=(msgspec.structs.replace(undecided, chunks_needed=needed),),
        )
        (words,) = lacks(cell, None)
        assert option in words
        assert "80 % of its budget" in words


def test_what_may_be_chance_is_said_with_a_way_to_tell(gate: Callable[..., Gate]) -> None:
    cell = Cell(
        pair="q8_0/q4_0", verdict="inconclusive", gates=(gate(),), not_significant=("kl_mean",)
    )
    (words,) = lacks(cell, None)
    assert "--kv-pairs q8_0/q4_0" in words
