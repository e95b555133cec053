"""Findings on a member of the zoo: no budget of language, and what [expect] says of members."""

from __future__ import annotations

import pytest

from pytest_kvquant.checks.declared import require_known
from pytest_kvquant.config.expectations import declared_failures, failures_on_member
from pytest_kvquant.config.overrides import Expect
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.kernels import (
    CornerRecord,
    Examination,
    NodeFailure,
    RungRecord,
    ScenarioRecord,
)
from pytest_kvquant.results.zoo import ZooCell
from pytest_kvquant.session.zoo_verdict import Declared, judged
from pytest_kvquant.zoo.members import by_name

PAIR, MEMBER = Pair("q4_0", "q4_0"), by_name("gpt-oss-64")


def examined(*, wrong: bool = False, died: bool = False, own: float = 0.0) -> Examination:
    corners = [
        CornerRecord(
            operation=operation, backend="CPU", nodes=9, ratio=0.5, error=0, worst=0,
            failed=int(wrong and operation == "attention"),
        )
        for operation in ("attention", "write", "rope")
    ]  # fmt: skip
    failure = NodeFailure(
        operation="attention", layer=0, node="n", tokens=3, text="head 1 is off", ratio=2
    )
    return Examination(
        level="minimal",
        corners=tuple(corners),
        failures=(failure,) if wrong else (),
        rungs=(
            RungRecord(depth=0, tokens=33, reference=1e-4),
            RungRecord(depth=0, tokens=3, own=own, reference=1e-4),
        ),
        scenarios=(
            ScenarioRecord(
                name="shift_head", title="", text="dies", verdict="crashed" if died else "pass"
            ),
        ),
    )


def told(
    found: Examination,
    here: frozenset[str] = frozenset(),
    elsewhere: frozenset[str] = frozenset(),
) -> ZooCell:
    return judged(MEMBER, PAIR, found, Examination(level="minimal"), Declared(here, elsewhere))


def test_a_healthy_pair_passes() -> None:
    assert told(examined()).verdict == "pass"


def test_no_budget_made_for_language_makes_room() -> None:
    """A tenth of q4_0's is 0.005 nats; the pair itself costs 0.0001 here."""
    found = told(examined(own=3e-3))
    assert found.verdict == "fail"
    assert "a batch of 3 tokens" in found.text


@pytest.mark.parametrize("name", ["attention", "operations.shift_head"])
def test_what_fails_on_the_users_model_may_fail_on_a_member_and_need_not(name: str) -> None:
    elsewhere = frozenset({name})
    assert told(examined(), elsewhere=elsewhere).verdict == "pass"
    found = examined(wrong=name == "attention", died=name != "attention")
    assert told(found).verdict == "fail"
    assert told(found, elsewhere=elsewhere).verdict == "pass"
    assert told(examined(wrong=True, died=True), elsewhere=elsewhere).verdict == "fail"


@pytest.mark.parametrize("name", ["attention", "operations.shift_head", "crashed"])
def test_what_is_declared_of_a_member_must_fail_there(name: str) -> None:
    found = told(examined(), here=frozenset({name}))
    assert found.verdict == "fail"
    assert "any more" in found.text


def test_what_is_declared_of_a_member_may_fail_there() -> None:
    assert told(examined(wrong=True), here=frozenset({"attention"})).verdict == "pass"
    dead = Examination(level="minimal", problem="crashed: SIGSEGV")
    assert told(dead).verdict == "fail"
    assert told(dead, here=frozenset({"crashed"})).verdict == "unsupported"


def test_names_of_members_are_patterns_and_no_matter_of_the_users_model() -> None:
    expect = {"q4_0/*": Expect(zoo={"gpt-*": ("attention",)}, device="CPU*")}
    assert failures_on_member(PAIR, "CPU", expect, "gpt-oss-64") == {"attention"}
    assert not failures_on_member(PAIR, "CUDA0", expect, "gpt-oss-64")
    assert not failures_on_member(PAIR, "CPU", expect, "phi2-80")
    assert not failures_on_member(Pair("f16", "f16"), "CPU", expect, "gpt-oss-64")
    assert not declared_failures(PAIR, "CPU", expect)


def test_a_misspelt_name_is_refused_with_the_nearest() -> None:
    expect = {"q4_0/*": Expect(zoo={"gpt-*": ("atention",)})}
    with pytest.raises(SettingsError, match="did you mean 'attention'"):
        require_known(expect, tuple)
