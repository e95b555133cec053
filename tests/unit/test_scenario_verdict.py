"""What becomes of a scenario that the library refuses, that kills, or whose fault is known."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kvquant.engine.messages.kernels import CornerSeen, NodeWrong, ScenarioPlayed
from pytest_kvquant.errors import CellCrashed, CellServerLost, CellUnsupported
from pytest_kvquant.quality.ladder import NO_TAIL
from pytest_kvquant.quality.scenario_verdict import OfScenario, ScenarioLimits
from pytest_kvquant.quality.scenarios.registry import Scenario, all_scenarios
from pytest_kvquant.results.kernels import Examination, ScenarioRecord

LIMITS = ScenarioLimits(1e-3, 1e-2)
SHIFT = "llama_memory_can_shift says no"
BY_NAME = {one.name: one for one in all_scenarios()}
DIVIDE = BY_NAME["divide"]
TURNED = "context shift of layer 0: cell 1 is turned by {} positions and was moved by {}"


def played(**changes: Any) -> ScenarioPlayed:
    fields: dict[str, Any] = {
        "corners": [], "failures": [], "unknown": {}, "seconds": 0.0, "unsupported": "",
        "failed": "", "reference": {"end": 1e-4}, "own": [],
    }  # fmt: skip
    return ScenarioPlayed(**{**fields, **changes})


def wrong(operation: str, text: str) -> dict[str, Any]:
    corner = CornerSeen(
        operation=operation, k_type="", v_type="", head_k=0, head_v=0, group=0, tokens=1, length=0,
        mask="", backend="CPU", nodes=1, failed=1, ratio=2, error=1, worst=1,
    )  # fmt: skip
    node = NodeWrong(
        operation=operation, layer=0, node="n", tokens=1, text=text, ratio=2, reproducer=None
    )
    return {"corners": [corner], "failures": [node]}


def examined(verdict: str | None, *left_out: str) -> Examination:
    """With one scenario played, ``any``."""
    record = ScenarioRecord(name="any", title="", verdict=verdict or "", text="")
    return Examination(
        level="full", scenarios=(record,) if verdict is not None else (), left_out=left_out
    )


def of(
    control: Examination | None,
    *,
    steps: tuple[str, ...] = ("decode", "restore"),
    last: int = 1,
    found: Examination | None = None,
    scenario: Scenario | None = None,
) -> OfScenario:
    chosen = scenario or Scenario("any", "any", lambda _: None)
    recorded = [["decode", [], ""] if one == "decode" else [one, "key", 0] for one in steps]
    return OfScenario(chosen, recorded, last, found or examined(None), control)


@pytest.mark.parametrize(
    ("f16", "verdict"),
    [("unsupported", "unsupported"), ("pass", "fail"), ("crashed", "fail"), (None, "unsupported")],
)
def test_what_f16_can_and_a_pair_cannot_fails(f16: str | None, verdict: str) -> None:
    about = of(examined(f16), steps=("decode", "seq_add"))
    assert about.judged(played(unsupported=SHIFT), LIMITS).verdict == verdict


def test_f16_may_say_that_it_cannot_shift_and_no_tail_only_where_the_ladder_got_none() -> None:
    no = played(unsupported="llama_memory_seq_rm(0, 64, -1) says no")
    assert of(None, steps=("seq_add",), last=0).judged(no, LIMITS).verdict == "unsupported"
    removal = of(None, steps=("seq_rm",), last=0)
    assert removal.judged(no, LIMITS).verdict == "fail"
    recurrent = of(None, steps=("seq_rm",), last=0, found=examined(None, NO_TAIL))
    assert recurrent.judged(no, LIMITS).verdict == "unsupported"


@pytest.mark.parametrize("control", [None, examined("fail"), examined("pass")])
def test_what_was_begun_and_not_done_fails_for_f16_too(control: Examination | None) -> None:
    found = of(control).judged(played(failed="llama.cpp took 0 of 9 bytes.", reference={}), LIMITS)
    assert found.verdict == "fail"
    assert "in llama_state_seq_set_data. llama.cpp took 0 of 9 bytes" in found.text
    assert of(control).ended(CellUnsupported("no kernel")).verdict == "fail"


def test_a_context_that_is_not_made_for_f16_either_is_unsupported() -> None:
    error = CellUnsupported("llama.cpp makes no context")
    assert of(None, last=-1).ended(error).verdict == "unsupported"
    assert of(examined("unsupported"), last=-1).ended(error).verdict == "unsupported"
    assert of(examined("pass"), last=-1).ended(error).verdict == "fail"
    again = of(None, steps=("decode", "reopen"))
    assert again.ended(error).verdict == "unsupported"


def test_deaths_and_losses_keep_their_verdict() -> None:
    assert of(None).ended(CellCrashed("SIGSEGV")).verdict == "crashed"
    assert of(None).ended(CellServerLost("gone")).verdict == "server-lost"


def about_divide() -> OfScenario:
    return of(None, steps=("decode", "seq_div", "decode"), last=2, scenario=DIVIDE)


@pytest.mark.parametrize("turned", [(1, -1), (-31, 31)])
def test_the_known_fault_excuses_itself(turned: tuple[int, int]) -> None:
    seen = played(**wrong("parameters", TURNED.format(*turned)))
    found = about_divide().judged(seen, LIMITS)
    assert (found.verdict, bool(found.known)) == ("fail", True)


@pytest.mark.parametrize(
    "seen",
    [
        played(**wrong("attention", "head 1 is off")),
        played(**wrong("parameters", "its base is 1, by the model's header 2")),
        played(**wrong("parameters", TURNED.format(2, -1))),
        played(**wrong("parameters", TURNED.format(2, 1))),
        played(**wrong("parameters", TURNED.format(1, -1)), reference={"end": 3.0}),
        played(reference={"end": 3.0}),
    ],
)
def test_and_nothing_else(seen: ScenarioPlayed) -> None:
    found = about_divide().judged(seen, LIMITS)
    assert (found.verdict, found.known) == ("fail", "")


def test_nor_a_death() -> None:
    assert about_divide().ended(CellCrashed("SIGSEGV")).known == ""
