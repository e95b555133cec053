"""A cache filled to its last cell."""

from __future__ import annotations

from pytest_kvquant.quality.scenarios.registry import scenario
from pytest_kvquant.quality.scenarios.tape import Tape


@scenario("a cache filled to its last cell")
def last_cell(tape: Tape) -> None:
    """The last rows are written and read."""
    tape.fill(0, tape.cells - 20)
    tape.score(0, 16)
    tape.each(0, 4)


WIDEST = 2048
"""Tokens of a window that is still passed: a scenario takes seconds."""


def _reach(window: int) -> int:
    """Tokens that pass a window twice."""
    return 2 * window + 40 if window else 200


@scenario("a window passed twice", cells=lambda window: _reach(window) + 24, level="full")
def past_the_window(tape: Tape) -> None:
    """Tokens well past a sliding window; cells of the window are used again."""
    if tape.window > WIDEST:
        tape.leave(f"a window of {tape.window:,} tokens is not passed")
        return
    reach = _reach(tape.window)
    while reach > 0:
        tape.fill(0, min(64, reach))
        reach -= 64
    tape.score(0, 16)
    tape.each(0, 4)
