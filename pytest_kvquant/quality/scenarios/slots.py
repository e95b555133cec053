"""Several sequences in one context: each must be as it is alone."""

from __future__ import annotations

from collections.abc import Callable

from pytest_kvquant.quality.scenarios.registry import scenario
from pytest_kvquant.quality.scenarios.tape import Tape

WORDS = {2: "two", 4: "four", 8: "eight"}

USUAL = {
    (2, False, False), (4, False, True), (8, False, False), (2, True, False), (4, True, True),
    (8, True, True),
}  # fmt: skip
"""Those with the short names: how many, whether unified, whether of uneven lengths."""

STANDARD = {"slots_2_streams", "slots_4_streams", "slots_4_unified", "prefill_beside_decode"}
"""What is played below the level ``full``."""

PREFILLED = 20
"""Tokens of the usual prefill beside a decode."""

LENGTH, LONG = 40, 300
"""Tokens of a slot before it is looked at: few, and past the first 256 cells."""


def _declare(
    name: str, title: str, record: Callable[[Tape], None], *, cells: int, slots: int, unified: bool
) -> None:
    record.__name__ = name
    level = "standard" if name in STANDARD else "full"
    scenario(title, sequences=slots, cells=cells, unified=unified, level=level)(record)


def _slots(count: int, length: int, *, uneven: bool) -> Callable[[Tape], None]:
    """The last sequence alone, then beside the others, which are prefilled and decode along."""

    def record(tape: Tape) -> None:
        last = count - 1
        tape.fill(last, length)
        tape.score(last, 4, "alone")
        tape.clear()
        for slot in range(count):
            tape.fill(slot, length if slot == last or not uneven else 8 + 7 * slot)
        for _ in range(4):
            tape.together(dict.fromkeys(range(count), 1), "together", of=last)
        tape.same("alone", "together")

    return record


def _prefill(tokens: int) -> Callable[[Tape], None]:
    """A batch of one token of one sequence and several of another."""

    def record(tape: Tape) -> None:
        tape.fill(1, LENGTH)
        tape.each(1, 3, "alone")
        tape.clear()
        tape.fill(1, LENGTH)
        for _ in range(3):
            tape.together({0: tokens, 1: 1}, "together", of=1)
        tape.same("alone", "together")

    return record


for _unified in (False, True):
    _shape = "unified" if _unified else "streams"
    _where = "in a unified cache" if _unified else "a stream each"
    for _count, _words in WORDS.items():
        for _uneven in (False, True):
            _kind = "uneven" if _uneven else "equal"
            _usual = (_count, _unified, _uneven) in USUAL
            _declare(
                f"slots_{_count}_{_shape}" + ("" if _usual else f"_{_kind}"),
                f"{_words} slots, {_where}, {_kind} lengths",
                _slots(_count, LENGTH, uneven=_uneven),
                cells=64, slots=_count, unified=_unified,
            )  # fmt: skip
    _declare(
        f"slots_2_{_shape}_long", f"two slots, {_where}, one past 256 tokens",
        _slots(2, LONG, uneven=True), cells=LONG + 20, slots=2, unified=_unified,
    )  # fmt: skip
    for _tokens in (3, PREFILLED, 48):
        _more = "" if _unified else "_streams"
        _declare(
            f"prefill_beside_decode{_more}" + ("" if _tokens == PREFILLED else f"_{_tokens}"),
            f"one slot is prefilled by {_tokens} tokens while another decodes, {_where}",
            _prefill(_tokens), cells=max(128, 4 * _tokens), slots=2, unified=_unified,
        )  # fmt: skip
