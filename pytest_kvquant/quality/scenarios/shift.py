"""Context shift: some tokens are dropped, those behind them move up."""

from __future__ import annotations

from pytest_kvquant.quality.scenarios.registry import KnownFault, scenario
from pytest_kvquant.quality.scenarios.tape import Tape


@scenario("context shift: the beginning is dropped, the rest moves up")
def shift_head(tape: Tape) -> None:
    """As llama-server does when a context is full: a few first tokens stay."""
    tape.fill(0, 96)
    tape.seq_rm(0, 4, 40)
    tape.seq_add(0, 40, -1, -36)
    tape.score(0, 16)
    tape.each(0, 2)


@scenario("context shift in the middle of a sequence")
def shift_middle(tape: Tape) -> None:
    """What was before the gap stays where it is."""
    tape.fill(0, 96)
    tape.seq_rm(0, 33, 64)
    tape.seq_add(0, 64, -1, -31)
    tape.score(0, 16)


@scenario("three context shifts after each other", level="full")
def shift_repeatedly(tape: Tape) -> None:
    """Keys are turned, and for quantized types rounded, three times."""
    tape.fill(0, 96)
    for _ in range(3):
        tape.seq_rm(0, 4, 20)
        tape.seq_add(0, 20, -1, -16)
        tape.score(0, 8, "between")
    tape.score(0, 16)


@scenario(
    "positions divided (self-extend)",
    level="full",
    known=KnownFault(
        "llama.cpp's pos_div notes the old position less the new one, where pos_add notes the "
        "new one less the old: keys are turned the wrong way",
        operation="parameters",
        pattern=r"turned by (?:(\d+) positions and was moved by -\1"
        r"|-(\d+) positions and was moved by \2)$",
    ),
)
def divide(tape: Tape) -> None:
    """``llama_memory_seq_div`` where the model allows it."""
    tape.fill(0, 64)
    tape.seq_div(0, 0, 64, 2)
    tape.score(0, 16)
