"""Caches saved and restored."""

from __future__ import annotations

from pytest_kvquant.quality.scenarios.registry import scenario
from pytest_kvquant.quality.scenarios.tape import Tape


@scenario("the whole context saved and restored")
def state_whole(tape: Tape) -> None:
    """``llama_state_get_data`` and back, with other tokens in between."""
    tape.fill(0, 64)
    tape.save("all")
    tape.score(0, 12, "straight on")
    tape.clear()
    tape.fill(0, 30)
    tape.restore("all")
    tape.goes_on(0, 64)
    tape.score(0, 12, "restored")
    tape.same("straight on", "restored")


@scenario("a sequence restored into another slot", sequences=2, cells=128)
def state_other_slot(tape: Tape) -> None:
    """The text goes on under another sequence id."""
    tape.fill(0, 64)
    tape.save("one", 0)
    tape.score(0, 12, "straight on")
    tape.restore("one", 1)
    tape.read_like(1, 0)
    tape.goes_on(1, 64)
    tape.score(1, 12, "restored")
    tape.same("straight on", "restored")


@scenario("a sequence with holes saved and restored", level="full")
def state_with_holes(tape: Tape) -> None:
    """Cells that are not in order of position."""
    tape.fill(0, 64)
    tape.seq_rm(0, 10, 30)
    tape.fill(0, 20)
    tape.save("one", 0)
    tape.score(0, 12, "straight on")
    tape.clear()
    tape.restore("one", 0)
    tape.goes_on(0, 84)
    tape.score(0, 12, "restored")
    tape.same("straight on", "restored")


@scenario("a sequence written to a file and read back")
def state_file(tape: Tape) -> None:
    """``llama_state_seq_save_file`` and ``llama_state_seq_load_file``."""
    tape.fill(0, 64)
    tape.save_file("one", 0)
    tape.score(0, 12, "straight on")
    tape.clear()
    tape.restore_file("one", 0)
    tape.goes_on(0, 64)
    tape.score(0, 12, "restored")
    tape.same("straight on", "restored")


@scenario("a sequence restored into a context of another size", level="full")
def state_other_size(tape: Tape) -> None:
    """Rows go to a cache with other strides."""
    tape.fill(0, 64)
    tape.save("one", 0)
    tape.score(0, 12, "straight on")
    tape.reopen(512)
    tape.restore("one", 0)
    tape.goes_on(0, 64)
    tape.score(0, 12, "restored")
    tape.same("straight on", "restored")
