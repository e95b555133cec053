"""A ceiling against its floor: what was tried decides, what was not leaves it open."""

from __future__ import annotations

import msgspec
import pytest

from pytest_kvquant.results.ceiling import Attempt, Ceiling

PER_TOKEN = 1000


def a_ceiling(tokens: int, bound: int, memory: int = 10**9, **outcomes: str) -> Ceiling:
    """``d512="timeout"``: 512 tokens took too long."""
    attempts = tuple(
        Attempt(context=int(name[1:]), outcome=outcome, text="", seconds=1.0)
        for name, outcome in outcomes.items()
    )
    return Ceiling(
        pair="q8_0/q8_0", tokens=tokens, bound=bound, predicted=bound, memory=memory,
        bytes_per_token=PER_TOKEN, attempts=attempts, seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "floor", "verdict"),
    [
        (a_ceiling(1024, 1024, d1024="fits"), 1024, "pass"),
        (a_ceiling(512, 1024, d1024="out-of-memory", d512="fits"), 512, "pass"),
        (a_ceiling(512, 1024, d1024="out-of-memory", d512="fits"), 1024, "fail"),
        (a_ceiling(0, 256, d256="unsupported"), 1, "fail"),
        (a_ceiling(0, 256, d256="timeout"), 1, "inconclusive"),
        (a_ceiling(512, 1024, d1024="timeout", d512="fits"), 1024, "inconclusive"),
        (a_ceiling(1024, 1024, d1024="fits"), 4096, "inconclusive"),
        (a_ceiling(1024, 1024, 1100 * PER_TOKEN, d1024="fits"), 4096, "fail"),
    ],
    ids=["reached", "over the floor", "under it", "nothing works", "no time at all", "no time",
         "larger ones were not tried", "larger ones cannot fit"],
)  # fmt: skip
def test_the_verdict_of_a_ceiling(found: Ceiling, floor: int, verdict: str) -> None:
    judged = found.against(floor)
    assert (judged.verdict, judged.floor) == (verdict, floor)
    assert judged.failure.count("\n") == len(found.attempts)
    assert ("the floor is" in judged.failure) is (floor > 1)


def test_a_window_does_not_make_a_floor_impossible() -> None:
    found = msgspec.structs.replace(
        a_ceiling(1024, 1024, 1100 * PER_TOKEN, d1024="fits"),
        windowed_bytes_per_token=PER_TOKEN * 9 // 10, window_cells=512,
    )  # fmt: skip
    assert found.against(4096).verdict == "inconclusive", (
        "it takes 870,400 bytes, and was not tried"
    )
