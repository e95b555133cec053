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


@scenario("a window passed twice", cells=512, level="full")
def past_the_window(tape: Tape) -> None:
    """Tokens well past a sliding window; cells of the window are used again."""
    reach = min(tape.cells - 24, 2 * tape.window + 40) if tape.window else 200
    while reach > 0:
        tape.fill(0, min(64, reach))
        reach -= 64
    tape.score(0, 16)
    tape.each(0, 4)
