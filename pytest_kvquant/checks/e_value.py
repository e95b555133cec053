"""Figures and budgets in, verdicts out, as data.

Each judge takes a cell's evidence so far, one figure per chunk in the order drawn, and replays
it from the first chunk: the first chunk count at which a rule speaks decides. So the verdict
depends on the evidence alone, and chunks drawn later, for another gate's sake, cannot undo it.

Two cases are not statistical. A budget of exactly 0 means "identical": any figure other than 0
fails at once. And a cell whose figures are all exactly 0 equals the reference to the last bit:
it passes at the first look, however few the chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.checks.decision import (
    beyond,
    bounded,
    figures_that_count,
    first_decision,
    identity_rule,
    may_speak,
    when,
)
from pytest_kvquant.numerics import betting, stats, token_shares
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.rules import LEAST_CHUNKS, Rules
from pytest_kvquant.numerics.stats import Interval
from pytest_kvquant.results.gate import Gate, Unit


class Quantity(NamedTuple):
    """What tells one e-value gate from another."""

    name: str
    unit: Unit
    title: str
    bound: str
    interval: Callable[[F64], Interval]
    needed: Callable[[F64, Interval], int | None]


def share_quantity(
    name: str, title: str, least: float, m_tok: int, budget: float, rules: Rules
) -> Quantity:
    """What tells one gate of a share of tokens from another."""

    def effective_per_chunk(seen: F64) -> float:
        return m_tok / token_shares.design_effect(seen, m_tok, least)

    def interval(seen: F64) -> Interval:
        effective_n = seen.size * effective_per_chunk(seen)
        return token_shares.clopper_pearson(float(seen.mean()), effective_n, rules.level)

    def needed(seen: F64, now: Interval) -> int | None:
        per_chunk = effective_per_chunk(seen)
        return token_shares.chunks_needed_share(now.figure, per_chunk, budget, rules.level)

    return Quantity(
        name=name,
        unit="share",
        title=title,
        bound="its Clopper-Pearson upper bound on the effective number of tokens",
        interval=interval,
        needed=needed,
    )


def judge_share(
    x: npt.ArrayLike,
    budget: float,
    rules: Rules,
    quantity: Quantity,
    kl: npt.ArrayLike | None,
) -> Gate:
    """A share of tokens per chunk against the share allowed.

    Raises:
        ValueError: shares or a budget outside [0, 1], or ``kl`` of another shape.
    """
    figures = figures_that_count(x, budget, rules)
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
    return judge_by_e_value(figures, budget, rules, quantity, identity)


def judge_by_e_value(
    figures: F64, budget: float, rules: Rules, quantity: Quantity, identity: F64
) -> Gate:
    """FAIL by the betting e-value after every chunk, PASS by an interval's upper end at looks.

    `identity` is 0 for a chunk only where the cell is known to equal the reference.
    """
    e_values = _e_values(figures, budget, identity, rules)

    def fails(n: int) -> bool:
        return may_speak(rules, n) and bool(e_values[n - 1] >= rules.e_threshold)

    def passes(n: int) -> bool:
        if not identity[:n].any():
            return True
        return n >= LEAST_CHUNKS and quantity.interval(figures[:n]).high < budget

    decision = first_decision(figures, budget, rules, fails, passes)
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
        low=bounded(now.low),
        high=bounded(now.high),
        budget=budget,
        unit=quantity.unit,
        chunks=figures.size,
        e_value=e_value,
        p_value=betting.e_to_p(e_value),
        alpha=rules.alpha,
        level=rules.level,
        decided_at=decision.at,
        census=decision.census,
        chunks_needed=beyond(needed, figures.size),
        rule=_e_value_rule(quantity, budget, rules),
    )


def _e_values(figures: F64, budget: float, identity: F64, rules: Rules) -> F64:
    """The largest e-value up to each chunk; judged once, the one that the chunks come to.

    A budget of 0 is refuted for good by any difference.
    """
    if budget == 0:
        return np.where(np.logical_or.accumulate(identity != 0), betting.LARGEST_E, 1.0)
    e_values = betting.betting_e_values(figures, budget)
    return np.maximum.accumulate(e_values) if rules.early else e_values


def _e_value_rule(quantity: Quantity, budget: float, rules: Rules) -> str:
    if budget == 0:
        return identity_rule(quantity.title)
    return (
        f"{quantity.title[0].upper()}{quantity.title[1:]} fails when the betting e-value against "
        f"its budget reaches {rules.e_threshold:g}, and passes when {quantity.bound} is under the "
        f"budget {when(rules)}."
    )
