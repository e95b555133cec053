"""Why a pair does not pass, in few words, and what would decide what is undecided."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from pytest_kvquant.report.reasons import by_how_much, lacks, short, undecided_lines
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
    healthy = gate(name="decode_kl_ratio", unit="ratio", budget=1.15, question="kernel")
    assert by_how_much(msgspec.structs.replace(healthy, figure=3.1)) == "decode KL 3.1 × healthy"
    assert by_how_much(msgspec.structs.replace(healthy, figure=0.42)) == "decode KL 0.4 × healthy"
    shift = gate(name="ln_ppl_shift", unit="ln ratio", figure=-0.5, question="kernel")
    assert by_how_much(shift) == "PPL shift 50 × limit"


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
        assert words.startswith("KL 80 % of budget, open after 8 chunks: ")


def test_an_open_check_of_recall_says_what_would_decide_it() -> None:
    check = Check(name="recall", verdict="inconclusive", text="97% of f16")
    (words,) = lacks(Cell(pair="a/b", verdict="pass", checks=(check,)), None)
    assert words.startswith("recall: 97% of f16; --kv-pairs a/b measures it alone")


def test_a_pair_that_is_undecided_takes_one_line(gate: Callable[..., Gate]) -> None:
    cell = undecided_cell("a/b", gate)
    (words,) = lacks(cell, None)
    assert words.startswith("PPL shift 1.10 × limit, KL 0.97 × healthy, KL 30 % of budget, 1 more")
    assert "close" not in words
    assert "budget of twice" not in words  # nothing is near its budget: chunks are what is lacking


def test_few_decoded_tokens_ask_for_more_of_them(gate: Callable[..., Gate]) -> None:
    few = gate(name="decode_kl_ratio", unit="ratio", figure=1.1, verdict="inconclusive",
               question="kernel", chunks=8)  # fmt: skip
    cell = Cell(pair="a/b", verdict="inconclusive", gates=(few,))
    (words,) = lacks(cell, None)
    assert words.startswith("decode KL 1.10 × healthy")


def test_many_undecided_pairs_do_not_bury_the_matrix(gate: Callable[..., Gate]) -> None:
    cells = tuple(undecided_cell(f"f16/t{number}", gate) for number in range(15))
    lines = undecided_lines(cells, ())
    assert len(lines) == 6
    assert "f16/t14" in lines[-1]
    assert "kvquant show" in lines[-1]


def undecided_cell(pair: str, gate: Callable[..., Gate]) -> Cell:
    """Four gates that one chunk could not decide, none of them near its budget."""
    base = gate(verdict="inconclusive", decided_at=None, chunks=1, question="fitness")
    gates = (
        msgspec.structs.replace(base, figure=0.003),
        msgspec.structs.replace(base, name="kl_tail", figure=0.0, chunks_needed=12),
        msgspec.structs.replace(
            base, name="kl_ratio", unit="ratio", figure=0.97, budget=1.1, question="kernel"
        ),
        msgspec.structs.replace(
            base, name="ln_ppl_shift", unit="ln ratio", figure=-0.011, question="kernel"
        ),
    )
    return Cell(pair=pair, verdict="inconclusive", gates=gates)


def test_what_may_be_chance_is_said_with_a_way_to_tell(gate: Callable[..., Gate]) -> None:
    cell = Cell(
        pair="q8_0/q4_0", verdict="inconclusive", gates=(gate(),), not_significant=("kl_mean",)
    )
    (words,) = lacks(cell, None)
    assert "--kv-pairs q8_0/q4_0" in words
