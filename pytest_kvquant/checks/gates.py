"""Figures and budgets in, verdicts out, as data.

Each judge takes a cell's evidence so far, one figure per chunk in the order drawn, and replays
it from the first chunk: the first chunk count at which a rule speaks decides. So the verdict
depends on the evidence alone, and chunks drawn later, for another gate's sake, cannot undo it.

A gate is one of four quantities against its budget:

    kl_mean       mean KL                     FAIL by betting e-value, PASS by log-scale t
    kl_tail       share of tokens over Q nats FAIL by betting e-value, PASS by Clopper-Pearson
    ln_ppl_ratio  ln PPL(cell)/PPL(reference) FAIL and PASS by t, two-sided
    top1_flips    share of decisive flips     FAIL by betting e-value, PASS by Clopper-Pearson

Two cases are not statistical. A budget of exactly 0 means "identical": any figure other than 0
fails at once. And a cell whose figures are all exactly 0 equals the reference to the last bit:
it passes at the first look, however few the chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics import stats
from pytest_kvquant.numerics.rules import LEAST_CHUNKS, Rules
from pytest_kvquant.numerics.stats import FloatArray, Interval
from pytest_kvquant.results.gate import Gate, GateName, Unit, Verdict

TAIL_DESIGN_EFFECT = 4.0
"""D0 of the KL tail: large KLs come in runs of neighbouring tokens."""

FLIP_DESIGN_EFFECT = 1.5
"""D0 of decisive flips, which cluster little."""


def judge_kl_mean(x: npt.ArrayLike, budget: float, rules: Rules) -> Gate:
    """Mean KL against its budget.

    Args:
        x: mean KL(reference ‖ cell) of each chunk, nats, shape (n_chunks,). Rounding below zero
            is clipped.
        budget: nats, >= 0.

    Raises:
        ValueError: for non-finite x or a budget that is negative or not finite.
    """
    raw = _evidence(x, budget, rules)
    figures = np.maximum(raw, 0)

    def needed(seen: FloatArray, now: Interval) -> int | None:
        if now.figure <= 0 or budget <= 0 or seen.size == 1:
            return None
        # On the scale on which the PASS rule works: the plain one promises too few chunks.
        spread = float(seen.std(ddof=1)) / now.figure
        return stats.chunks_needed(math.log(now.figure), spread, math.log(budget))

    quantity = _Quantity(
        name="kl_mean",
        unit="nats",
        title="mean KL",
        bound="the upper end of its log-scale t interval",
        interval=lambda seen: stats.log_t_interval(seen, rules.level),
        needed=needed,
    )
    return _judge_by_e_value(figures, budget, rules, quantity, identity=raw)


def judge_kl_tail(
    x: npt.ArrayLike,
    budget: float,
    rules: Rules,
    *,
    m_tok: int,
    over: float,
    kl: npt.ArrayLike | None = None,
) -> Gate:
    """Share of tokens with a KL over `over` nats against the share allowed.

    Args:
        x: that share of each chunk, shape (n_chunks,), in [0, 1].
        budget: the share allowed, in [0, 1].
        m_tok: scored tokens per chunk.
        over: Q, nats; only told in the rule.
        kl: mean KL of each chunk, shape (n_chunks,). Where it is exactly 0 throughout, a share
            of 0 is exact and not an estimate.

    Raises:
        ValueError: for non-finite x, shares or a budget outside [0, 1], or kl of another shape.
    """
    quantity = _share_quantity(
        "kl_tail",
        f"the share of tokens over {over:g} nats",
        TAIL_DESIGN_EFFECT,
        m_tok,
        budget,
        rules,
    )
    return _judge_share(x, budget, rules, quantity, kl)


def judge_top1_flips(
    x: npt.ArrayLike,
    budget: float,
    rules: Rules,
    *,
    m_tok: int,
    kl: npt.ArrayLike | None = None,
) -> Gate:
    """Share of decisive flips against the share allowed.

    A flip is decisive where the argmax differs and the reference's margin between its two best
    tokens exceeds the tie band.

    Args:
        x: share of decisive flips of each chunk, shape (n_chunks,), in [0, 1].
        budget: the share allowed, in [0, 1].
        m_tok: scored tokens per chunk.
        kl: as for `judge_kl_tail`.

    Raises:
        ValueError: as `judge_kl_tail`.
    """
    quantity = _share_quantity(
        "top1_flips", "the share of decisive flips", FLIP_DESIGN_EFFECT, m_tok, budget, rules
    )
    return _judge_share(x, budget, rules, quantity, kl)


def judge_ln_ppl(x: npt.ArrayLike, budget: float, rules: Rules) -> Gate:
    """The ln PPL ratio against a budget for either direction.

    FAILs where the whole interval m ± t·s/√n lies outside ±budget, PASSes where it lies inside,
    both at looks only. The p-value is the smallest of the looks' (`stats.t_p_value`) times the
    number of looks they share alpha with.

    Args:
        x: mean of nll(cell) - nll(reference) of each chunk, nats, shape (n_chunks,).
        budget: B >= 0: the mean may lie between -B and +B.

    Raises:
        ValueError: for non-finite x or a budget that is negative or not finite.
    """
    figures = _evidence(x, budget, rules)

    def at(n: int) -> Interval:
        return stats.t_interval(figures[:n], rules.level)

    def fails(n: int) -> bool:
        if budget == 0:
            return _speaks(rules, n) and bool(figures[:n].any())
        if n not in rules.schedule or n < LEAST_CHUNKS:
            return False
        return at(n).low > budget or at(n).high < -budget

    def passes(n: int) -> bool:
        if not figures[:n].any():
            return True
        return n >= LEAST_CHUNKS and -budget < at(n).low and at(n).high < budget

    decision = _first_decision(figures, budget, rules, fails, passes)
    seen = figures[: decision.seen]
    now = at(seen.size)
    needed = None
    if decision.verdict == "inconclusive" and seen.size > 1:
        needed = stats.chunks_needed(abs(now.figure), float(seen.std(ddof=1)), budget)
    if budget == 0:
        p_value = 0.0 if seen.any() else 1.0
    else:
        # After a FAIL, later looks may still sharpen the evidence, as an e-value would.
        counted = figures if decision.verdict == "fail" else seen
        p_value = _p_value_of_looks(counted, budget, rules)
    return Gate(
        name="ln_ppl_ratio",
        verdict=decision.verdict,
        figure=now.figure,
        low=_bounded(now.low),
        high=_bounded(now.high),
        budget=budget,
        unit="ln ratio",
        chunks=figures.size,
        e_value=None,
        p_value=p_value,
        alpha=rules.alpha,
        level=rules.level,
        decided_at=decision.at,
        census=decision.census,
        chunks_needed=_beyond(needed, figures.size),
        rule=_ln_ppl_rule(budget, rules),
    )


class _Quantity(NamedTuple):
    """What tells one e-value gate from another."""

    name: GateName
    unit: Unit
    title: str
    bound: str
    interval: Callable[[FloatArray], Interval]
    needed: Callable[[FloatArray, Interval], int | None]


class _Decision(NamedTuple):
    verdict: Verdict
    at: int | None
    seen: int
    census: bool


def _evidence(x: npt.ArrayLike, budget: float, rules: Rules) -> FloatArray:
    """The chunks that count, once figures and budget are known to be sound."""
    if not 0 <= budget < math.inf:
        raise ValueError(f"a budget is a number from 0 up, got {budget}")
    return stats.chunk_figures(x)[: rules.cap]


def _speaks(rules: Rules, n: int) -> bool:
    """Whether a rule that holds at every chunk may decide at n chunks."""
    return rules.early or n == rules.cap


def _first_decision(
    figures: FloatArray,
    budget: float,
    rules: Rules,
    fails: Callable[[int], bool],
    passes: Callable[[int], bool],
) -> _Decision:
    """The first chunk count at which a rule speaks; at the same count FAIL comes first."""
    for n in range(1, figures.size + 1):
        if fails(n):
            return _Decision("fail", n, n, census=False)
        if n in rules.schedule and passes(n):
            return _Decision("pass", n, n, census=False)
    if rules.census and figures.size == rules.cap:
        verdict: Verdict = "pass" if abs(float(figures.mean())) <= budget else "fail"
        return _Decision(verdict, rules.cap, rules.cap, census=True)
    return _Decision("inconclusive", None, figures.size, census=False)


def _share_quantity(
    name: GateName, title: str, least: float, m_tok: int, budget: float, rules: Rules
) -> _Quantity:
    def effective_per_chunk(seen: FloatArray) -> float:
        return m_tok / stats.design_effect(seen, m_tok, least)

    def interval(seen: FloatArray) -> Interval:
        effective_n = seen.size * effective_per_chunk(seen)
        return stats.clopper_pearson(float(seen.mean()), effective_n, rules.level)

    def needed(seen: FloatArray, now: Interval) -> int | None:
        per_chunk = effective_per_chunk(seen)
        return stats.chunks_needed_share(now.figure, per_chunk, budget, rules.level)

    return _Quantity(
        name=name,
        unit="share",
        title=title,
        bound="its Clopper-Pearson upper bound on the effective number of tokens",
        interval=interval,
        needed=needed,
    )


def _judge_share(
    x: npt.ArrayLike,
    budget: float,
    rules: Rules,
    quantity: _Quantity,
    kl: npt.ArrayLike | None,
) -> Gate:
    figures = _evidence(x, budget, rules)
    if budget > 1:
        raise ValueError(f"the budget of a share lies between 0 and 1, got {budget}")
    if budget == 0:
        identity = figures
    elif kl is None:
        identity = np.ones_like(figures)
    else:
        identity = stats.chunk_figures(kl)[: rules.cap]
        if identity.shape != figures.shape:
            raise ValueError("kl and the shares must come from the same chunks")
    return _judge_by_e_value(figures, budget, rules, quantity, identity)


def _judge_by_e_value(
    figures: FloatArray, budget: float, rules: Rules, quantity: _Quantity, identity: FloatArray
) -> Gate:
    """FAIL by the betting e-value after every chunk, PASS by an interval's upper end at looks.

    `identity` is 0 for a chunk only where the cell is known to equal the reference.
    """
    e_values = _e_values(figures, budget, identity, rules)

    def fails(n: int) -> bool:
        return _speaks(rules, n) and bool(e_values[n - 1] >= rules.e_threshold)

    def passes(n: int) -> bool:
        if not identity[:n].any():
            return True
        return n >= LEAST_CHUNKS and quantity.interval(figures[:n]).high < budget

    decision = _first_decision(figures, budget, rules, fails, passes)
    seen = figures[: decision.seen]
    now = quantity.interval(seen)
    needed = quantity.needed(seen, now) if decision.verdict == "inconclusive" else None
    # After a FAIL, more chunks may still sharpen the evidence: the largest E is valid at any stop.
    counted = figures.size if decision.verdict == "fail" else seen.size
    e_value = float(e_values[counted - 1])
    return Gate(
        name=quantity.name,
        verdict=decision.verdict,
        figure=now.figure,
        low=_bounded(now.low),
        high=_bounded(now.high),
        budget=budget,
        unit=quantity.unit,
        chunks=figures.size,
        e_value=e_value,
        p_value=stats.e_to_p(e_value),
        alpha=rules.alpha,
        level=rules.level,
        decided_at=decision.at,
        census=decision.census,
        chunks_needed=_beyond(needed, figures.size),
        rule=_e_value_rule(quantity, budget, rules),
    )


def _e_values(figures: FloatArray, budget: float, identity: FloatArray, rules: Rules) -> FloatArray:
    """The largest e-value up to each chunk; judged once, the one that the chunks come to.

    A budget of 0 is refuted for good by any difference.
    """
    if budget == 0:
        return np.where(np.logical_or.accumulate(identity != 0), stats.LARGEST_E, 1.0)
    e_values = stats.betting_e_values(figures, budget)
    return np.maximum.accumulate(e_values) if rules.early else e_values


def _p_value_of_looks(figures: FloatArray, budget: float, rules: Rules) -> float:
    looks = [n for n in rules.schedule if LEAST_CHUNKS <= n <= figures.size]
    p_values = [stats.t_p_value(figures[:n], budget) for n in looks]
    return min(1.0, rules.looks_planned * min(p_values, default=1.0))


def _bounded(end: float) -> float | None:
    return end if math.isfinite(end) else None


def _beyond(needed: int | None, chunks: int) -> int | None:
    """A forecast that has been overtaken means "one more", not "long ago"."""
    return None if needed is None else max(needed, chunks + 1)


def _e_value_rule(quantity: _Quantity, budget: float, rules: Rules) -> str:
    if budget == 0:
        return _identity_rule(quantity.title)
    return (
        f"{quantity.title[0].upper()}{quantity.title[1:]} fails when the betting e-value against "
        f"its budget reaches {rules.e_threshold:g}, and passes when {quantity.bound} is under the "
        f"budget {_when(rules)}."
    )


def _ln_ppl_rule(budget: float, rules: Rules) -> str:
    if budget == 0:
        return _identity_rule("the ln PPL ratio")
    return (
        "The ln PPL ratio fails when its whole t interval lies outside the budget of either "
        f"direction, and passes when it lies inside, {_when(rules)}."
    )


def _identity_rule(title: str) -> str:
    return f"A budget of 0 means identical: {title} fails at the first difference."


def _when(rules: Rules) -> str:
    *others, last = rules.schedule
    looks = f"{', '.join(map(str, others))} or {last}" if others else str(last)
    census = f"; after {rules.cap} chunks the plain mean decides" if rules.census else ""
    return f"at {looks} chunks{census}"
