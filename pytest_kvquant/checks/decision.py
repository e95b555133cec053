"""At which chunk count a rule decides, and what it says in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy.typing as npt

from pytest_kvquant.numerics import stats
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Verdict


class FirstDecision(NamedTuple):
    """What the first rule that spoke said, and at how many chunks."""

    verdict: Verdict
    at: int | None
    seen: int
    census: bool


def figures_that_count(x: npt.ArrayLike, budget: float, rules: Rules) -> F64:
    """The chunks that count, once figures and budget are known to be sound."""
    if not 0 <= budget < math.inf:
        raise ValueError(f"a budget is a number from 0 up, got {budget}")
    return stats.chunk_figures(x)[: rules.cap]


def may_speak(rules: Rules, n: int) -> bool:
    """Whether a rule that holds at every chunk may decide at n chunks."""
    return rules.early or n == rules.cap


def first_decision(
    figures: F64,
    budget: float,
    rules: Rules,
    fails: Callable[[int], bool],
    passes: Callable[[int], bool],
) -> FirstDecision:
    """The first chunk count at which a rule speaks; at the same count FAIL comes first."""
    for n in range(1, figures.size + 1):
        if fails(n):
            return FirstDecision("fail", n, n, census=False)
        if n in rules.schedule and passes(n):
            return FirstDecision("pass", n, n, census=False)
    if rules.census and figures.size == rules.cap:
        verdict: Verdict = "pass" if abs(float(figures.mean())) <= budget else "fail"
        return FirstDecision(verdict, rules.cap, rules.cap, census=True)
    return FirstDecision("inconclusive", None, figures.size, census=False)


def bounded(end: float) -> float | None:
    """An end of an interval; ``None`` where it has none."""
    return end if math.isfinite(end) else None


def beyond(needed: int | None, chunks: int) -> int | None:
    """A forecast that has been overtaken means "one more", not "long ago"."""
    return None if needed is None else max(needed, chunks + 1)


def identity_rule(title: str) -> str:
    """The rule of a budget of 0."""
    return f"A budget of 0 means identical: {title} fails at the first difference."


def when(rules: Rules) -> str:
    """The looks of an interval, in words."""
    *others, last = rules.schedule
    looks = f"{', '.join(map(str, others))} or {last}" if others else str(last)
    census = f"; after {rules.cap} chunks the plain mean decides" if rules.census else ""
    return f"at {looks} chunks{census}"
