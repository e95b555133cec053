"""The ln PPL ratio against a budget for either direction."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pytest_kvquant.checks.budget import Budget, Shown
from pytest_kvquant.checks.decision import (
    beyond,
    bounded,
    figures_that_count,
    first_decision,
    identity_rule,
    may_speak,
    when,
)
from pytest_kvquant.checks.declaration import Figures, Given, gate
from pytest_kvquant.numerics import stats
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.rules import LEAST_CHUNKS, Rules
from pytest_kvquant.numerics.stats import Interval
from pytest_kvquant.results.gate import Gate


def judge_ln_ppl(x: npt.ArrayLike, budget: float | F64, rules: Rules) -> Gate:
    """The ln PPL ratio against a budget for either direction.

    FAILs where the whole interval m ± t·s/√n lies outside ±budget, PASSes where it lies inside,
    both at looks only. The p-value is the smallest of the looks' (`stats.t_p_value`) times the
    number of looks they share alpha with.

    Args:
        x: mean of nll(cell) - nll(reference) of each chunk, nats, shape (n_chunks,).
        budget: B >= 0: the mean may lie between -B and +B. One, or that of each count of chunks,
            shape (n_chunks,), where it is known by them: so a look says the same ever after.

    Raises:
        ValueError: for non-finite x or a budget that is negative or not finite.
    """
    every = stats.chunk_figures(x)
    allowed = np.broadcast_to(np.asarray(budget, np.float64), every.shape)[: rules.cap]
    last = float(allowed[-1])
    figures = figures_that_count(every, last, rules)

    def at(n: int) -> Interval:
        return stats.t_interval(figures[:n], rules.level)

    def fails(n: int) -> bool:
        if last == 0:
            return may_speak(rules, n) and bool(figures[:n].any())
        if n not in rules.schedule or n < LEAST_CHUNKS:
            return False
        return bool(at(n).low > allowed[n - 1] or at(n).high < -allowed[n - 1])

    def passes(n: int) -> bool:
        if not figures[:n].any():
            return True
        most = allowed[n - 1]
        return n >= LEAST_CHUNKS and bool(-most < at(n).low and at(n).high < most)

    decision = first_decision(figures, last, rules, fails, passes)
    seen = figures[: decision.seen]
    now = at(seen.size)
    most = float(allowed[seen.size - 1])
    needed = None
    if decision.verdict == "inconclusive" and seen.size > 1:
        needed = stats.chunks_needed(abs(now.figure), float(seen.std(ddof=1)), most)
    if last == 0:
        p_value = 0.0 if seen.any() else 1.0
    else:
        # After a FAIL, later looks may still sharpen the evidence, as an e-value would.
        counted = figures if decision.verdict == "fail" else seen
        p_value = _p_value_of_looks(counted, allowed, rules)
    return Gate(
        name="ln_ppl_ratio",
        verdict=decision.verdict,
        figure=now.figure,
        low=bounded(now.low),
        high=bounded(now.high),
        budget=most,
        unit="ln ratio",
        chunks=figures.size,
        e_value=None,
        p_value=p_value,
        alpha=rules.alpha,
        level=rules.level,
        decided_at=decision.at,
        census=decision.census,
        chunks_needed=beyond(needed, figures.size),
        rule=_ln_ppl_rule(last, rules),
    )


def _p_value_of_looks(figures: F64, allowed: F64, rules: Rules) -> float:
    looks = [n for n in rules.schedule if LEAST_CHUNKS <= n <= figures.size]
    p_values = [stats.t_p_value(figures[:n], float(allowed[n - 1])) for n in looks]
    return min(1.0, rules.looks_planned * min(p_values, default=1.0))


def _ln_ppl_rule(budget: float, rules: Rules) -> str:
    if budget == 0:
        return identity_rule("the ln PPL ratio")
    return (
        "The ln PPL ratio fails when its whole t interval lies outside the budget of either "
        f"direction, and passes when it lies inside, {when(rules)}."
    )


def _calibrated(shown: Shown) -> float | None:
    if shown.cell.quality is None:
        return None
    seen = shown.cell.quality.prefill
    return shown.times(seen.ln_ppl_ratio, seen.ln_ppl_ratio_chunk_se)


@gate(
    "ln_ppl_ratio",
    title="ln PPL ratio",
    short="PPL",
    test="test_perplexity",
    group="quality",
    order=3,
    budget=Budget(
        "ln_ppl",
        "ln ratio",
        rounded=0.02,
        # A tenth of the RMS change of a log-likelihood at that KL.
        drift=lambda kl: 0.1 * math.sqrt(2 * kl),
        calibrated=_calibrated,
        least=2e-3,
    ),
    rule="two-sided mean",
)
def ln_ppl_ratio(seen: Figures, given: Given) -> Gate:
    """The perplexity moved neither up nor down by more than its budget.

    Why: perplexity is what people compare. It is gated in both directions, for a better one is no
    better model: the cache cannot know more than f16 does.

    Healthy: |ln ratio| under 0.001 for q8_0, under 0.02 for 4 bits.

    A failure means: the likelihood of the text itself moved; with a passing KL, look at the
    interval first: PPL is the noisier figure.
    """
    return judge_ln_ppl(seen["ln_ppl"], given.budgets["ln_ppl"], given.rules)
