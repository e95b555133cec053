"""Parts of a sequence forgotten, then decoded into the holes."""

from __future__ import annotations

from pytest_kvquant.quality.scenarios.registry import scenario
from pytest_kvquant.quality.scenarios.tape import Tape


@scenario("the tail is forgotten and decoded again")
def remove_tail(tape: Tape) -> None:
    """As speculative decoding does with a rejected draft."""
    tape.fill(0, 64)
    tape.score(0, 12, "first")
    tape.rewind(0, 64)
    tape.seq_rm(0, 64)
    tape.score(0, 12, "again")
    tape.same("first", "again")


@scenario("the middle is forgotten; what follows is decoded into the hole")
def remove_middle(tape: Tape) -> None:
    """New tokens go to cells between old ones."""
    tape.fill(0, 96)
    tape.seq_rm(0, 20, 53)
    tape.score(0, 16)
    tape.each(0, 2)


@scenario("all sequences but one are forgotten", sequences=3, cells=128, unified=True)
def keep_one(tape: Tape) -> None:
    """``llama_memory_seq_keep``."""
    tape.fill(0, 40)
    tape.fill(1, 40)
    tape.fill(2, 40)
    tape.seq_keep(1)
    tape.score(1, 12)
    tape.fill(0, 40)
    tape.score(1, 4, "after")


@scenario("a sequence forgotten whole, its cells used by another", sequences=2, cells=64,
          unified=True)  # fmt: skip
def reuse_cells(tape: Tape) -> None:
    """Cells of a unified cache change their owner."""
    tape.fill(0, 100)
    tape.seq_rm(0, -1)
    tape.fill(1, 90)
    tape.score(1, 12)
