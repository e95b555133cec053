"""Recurrent state rolled back, where a model has one."""

from __future__ import annotations

from pytest_kvquant.quality.scenarios.registry import scenario
from pytest_kvquant.quality.scenarios.tape import Tape


@scenario("a sequence rolled back through a saved state", level="full")
def roll_back(tape: Tape) -> None:
    """A recurrent state cannot give up its tail; a saved one can be put back."""
    tape.fill(0, 48)
    tape.save("here", 0)
    tape.score(0, 12, "first")
    tape.clear()
    tape.restore("here", 0)
    tape.goes_on(0, 48)
    tape.score(0, 12, "again")
    tape.same("first", "again")
