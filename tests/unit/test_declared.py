"""What [expect] fails may name, and that it is strict."""

from __future__ import annotations

import pytest

from pytest_kvquant.checks.budgets import resolve_budgets
from pytest_kvquant.checks.declared import (
    as_declared,
    gates_as_declared,
    is_declared,
    require_known,
)
from pytest_kvquant.checks.expected import expected
from pytest_kvquant.checks.family import holm_exit
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.config.overrides import Expect
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.report.matrix_rows import DECLARED, tone, worst_verdict
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.session.excuses import is_excused

PAIR = Pair("q8_0", "turbo4")


def gate(name: str, verdict: str, p_value: float) -> Gate:
    return Gate(
        name=name, verdict=verdict, figure=0.1, low=None, high=None, budget=0.01, unit="nats",
        chunks=8, e_value=None, p_value=p_value, alpha=0.01, level=0.01, decided_at=8,
        census=False, chunks_needed=None, rule="by a test",
    )  # fmt: skip


def test_a_declared_gate_that_fails_is_no_evidence_against_the_run() -> None:
    found = gates_as_declared(
        [gate("kl_mean", "fail", 1e-9), gate("kl_tail", "fail", 1e-9)], {"kl_mean"}
    )
    assert [one.verdict for one in found] == ["pass", "fail"]
    assert "as [expect] says" in found[0].rule
    assert holm_exit(found) == (False, True)


def test_a_declared_gate_that_passes_fails_the_run() -> None:
    (found,) = gates_as_declared([gate("kl_mean", "pass", 1.0)], {"kl_mean"})
    assert found.verdict == "fail"
    assert "does not any more" in found.rule
    assert holm_exit([found]) == (True,)


def test_an_open_gate_stays_open() -> None:
    open_one = gate("kl_mean", "inconclusive", 0.5)
    assert gates_as_declared([open_one], {"kl_mean"}) == (open_one,)


def test_a_declared_crash_is_skipped_whoever_asked_for_the_pair() -> None:
    cell = Cell(pair=str(PAIR), verdict="crashed", message="by SIGSEGV")
    asked = {"named": True, "accepted": True, "strict": True}
    assert is_declared(cell, {"crashed"})
    assert is_excused(cell, **asked, declared=frozenset({"crashed"}))
    assert not is_excused(cell, **asked, declared=frozenset({"timeout"}))


def test_a_declared_crash_is_no_failure_of_the_run() -> None:
    cell = Cell(pair=str(PAIR), verdict="crashed", excused=True)
    assert worst_verdict(cell, None, None) == DECLARED
    assert tone(DECLARED) == "good"


def test_a_declared_crash_that_is_gone_is_told() -> None:
    subject = Subject(
        pair=PAIR, cell=Cell(pair=str(PAIR), verdict="pass"),
        budgets=resolve_budgets(PAIR, embedded=False, overrides={}),
    )  # fmt: skip
    assert expected(subject) is None
    said = expected(subject._replace(declared=frozenset({"crashed"})))
    assert said is not None
    assert said.verdict == "fail"
    assert "is not any more" in said.text


def test_a_verdict_is_a_name_of_the_check_that_gives_it() -> None:
    twin = Check(name="distinct", verdict="fail", text="the same logits as q8_0/q8_0")
    assert as_declared(twin, {"aliased"}).verdict == "pass"


def scenarios() -> list[str]:
    return ["shift_head"]


@pytest.mark.parametrize(
    "name",
    ["attention", "kl_mean", "kl_ratio", "crashed", "aliased", "operations.shift_head", "types"],
)
def test_checks_gates_operations_and_verdicts_can_be_named(name: str) -> None:
    require_known({"*/*": Expect(fails=(name,))}, scenarios)


@pytest.mark.parametrize(
    ("name", "near"),
    [("atention", "attention"), ("operations.shift_haed", "operations.shift_head"),
     ("crash", "crashed")],
)  # fmt: skip
def test_a_name_that_nothing_has_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(SettingsError, match=f"did you mean '{near}'"):
        require_known({"q8_0/*": Expect(fails=(name,))}, scenarios)
