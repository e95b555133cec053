"""Which unsupported pairs fail nothing."""

from __future__ import annotations

import pytest

from pytest_kvquant.engine.parent.endings import NO_REASON
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.session.excuses import is_excused

REFUSED = "llama.cpp makes no context for K q8_0, V f16: head size 80 is no multiple of 32."
NOBODY = {"named": False, "accepted": False, "strict": False}


def cell(verdict: str, message: str = REFUSED) -> Cell:
    return Cell(pair="q8_0/f16", verdict=verdict, message=message)  # type: ignore[arg-type]


def test_what_the_library_rules_out_and_nobody_named_is_excused() -> None:
    assert is_excused(cell("unsupported"), **NOBODY)


@pytest.mark.parametrize("asked", ["named", "accepted", "strict"])
def test_what_somebody_wants_is_not(asked: str) -> None:
    assert not is_excused(cell("unsupported"), **{**NOBODY, asked: True})


def test_a_refusal_without_a_reason_is_not() -> None:
    assert not is_excused(cell("unsupported", f"no context: {NO_REASON}."), **NOBODY)


@pytest.mark.parametrize("verdict", ["crashed", "timeout", "out-of-memory", "fail", "substituted"])
def test_other_verdicts_are_not(verdict: str) -> None:
    assert not is_excused(cell(verdict), **NOBODY)
