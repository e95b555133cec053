"""Two questions, two answers: is the kernel right, and is the pair fit to use on this model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from pytest_kvquant.results.cell import Answer, Check
from pytest_kvquant.results.gate import Gate

_WORST: tuple[Answer, ...] = ("fail", "inconclusive", "pass")


class Answers(NamedTuple):
    """What a cell's gates and checks say to both questions."""

    kernel: Answer
    fitness: Answer


def answers(
    gates: Sequence[Gate], checks: Sequence[Check], chance: Collection[str] = ()
) -> Answers:
    """Read a cell's gates and checks.

    Fitness is judged by the gates for which the owner set budgets, and by nothing else: without
    any it reads ``not judged``, never ``pass``.

    Args:
        chance: gates whose fail may be chance among all gates of the run; they are open.
    """
    told = {"kernel": [_answer(check.verdict) for check in checks], "fitness": []}
    for gate in gates:
        fails_by_chance = gate.verdict == "fail" and gate.name in chance
        told[gate.question].append("inconclusive" if fails_by_chance else gate.verdict)
    kernel = [gate for gate in gates if gate.question == "kernel"]
    return Answers(
        _worst(told["kernel"]) if kernel or "fail" in told["kernel"] else "not judged",
        _worst(told["fitness"]),
    )


def _answer(verdict: str) -> Answer:
    return "fail" if verdict == "fail" else "pass"


def _worst(told: Sequence[Answer]) -> Answer:
    return next((one for one in _WORST if one in told), "not judged")
