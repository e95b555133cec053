"""Sequences copied: within a unified cache, and across streams."""

from __future__ import annotations

from pytest_kvquant.quality.scenarios.registry import scenario
from pytest_kvquant.quality.scenarios.tape import Tape


def _copied(tape: Tape) -> None:
    tape.fill(0, 64)
    tape.seq_cp(0, 1)
    tape.score(0, 12, "original")
    tape.score(1, 12, "copy")
    tape.same("original", "copy")


@scenario("a sequence copied within a unified cache", sequences=2, cells=128, unified=True)
def copy_unified(tape: Tape) -> None:
    """Both go on from the same cells."""
    _copied(tape)


@scenario("a sequence copied to another stream", sequences=2, cells=128)
def copy_streams(tape: Tape) -> None:
    """The cells themselves are copied."""
    _copied(tape)


@scenario("two requests reuse one prefix", sequences=3, cells=128, unified=True)
def shared_prefix(tape: Tape) -> None:
    """A system prompt is decoded once; two sequences go on from it in one batch."""
    tape.fill(0, 48)
    tape.seq_cp(0, 1)
    tape.seq_cp(0, 2)
    tape.together({1: 4, 2: 4}, "together", of=1)
    tape.score(0, 4, "alone")
    tape.same("together", "alone")
