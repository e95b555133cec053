"""Several sequences in one context: each must be as it is alone."""

from __future__ import annotations

from pytest_kvquant.quality.scenarios.registry import scenario
from pytest_kvquant.quality.scenarios.tape import Tape


def _slots(tape: Tape, count: int, *, uneven: bool) -> None:
    """The last sequence alone, then beside the others, which are prefilled and decode along."""
    last = count - 1
    length = 40
    tape.fill(last, length)
    tape.score(last, 4, "alone")
    tape.clear()
    for slot in range(count):
        tape.fill(slot, length if slot == last or not uneven else 8 + 7 * slot)
    for _ in range(4):
        tape.together(dict.fromkeys(range(count), 1), "together", of=last)
    tape.same("alone", "together")


@scenario("two slots, a stream each", sequences=2, cells=64)
def slots_2_streams(tape: Tape) -> None:
    """Equal lengths."""
    _slots(tape, 2, uneven=False)


@scenario("four slots, a stream each, uneven lengths", sequences=4, cells=64)
def slots_4_streams(tape: Tape) -> None:
    """Uneven lengths."""
    _slots(tape, 4, uneven=True)


@scenario("eight slots, a stream each", sequences=8, cells=64, level="full")
def slots_8_streams(tape: Tape) -> None:
    """Equal lengths."""
    _slots(tape, 8, uneven=False)


@scenario("two slots in a unified cache", sequences=2, cells=64, unified=True, level="full")
def slots_2_unified(tape: Tape) -> None:
    """Equal lengths."""
    _slots(tape, 2, uneven=False)


@scenario("four slots in a unified cache, uneven lengths", sequences=4, cells=64, unified=True)
def slots_4_unified(tape: Tape) -> None:
    """Uneven lengths, as llama-server has it."""
    _slots(tape, 4, uneven=True)


@scenario("eight slots in a unified cache", sequences=8, cells=64, unified=True, level="full")
def slots_8_unified(tape: Tape) -> None:
    """Uneven lengths."""
    _slots(tape, 8, uneven=True)


@scenario("one slot is prefilled while another decodes", sequences=2, cells=128, unified=True)
def prefill_beside_decode(tape: Tape) -> None:
    """A batch of one token of one sequence and many of another."""
    tape.fill(1, 40)
    tape.each(1, 3, "alone")
    tape.clear()
    tape.fill(1, 40)
    for _ in range(3):
        tape.together({0: 20, 1: 1}, "together", of=1)
    tape.same("alone", "together")
