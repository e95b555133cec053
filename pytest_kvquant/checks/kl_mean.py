"""Mean KL against its budget."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pytest_kvquant.checks.budget import Budget, Shown
from pytest_kvquant.checks.decision import figures_that_count
from pytest_kvquant.checks.declaration import Figures, Given, gate
from pytest_kvquant.checks.e_value import Quantity, judge_by_e_value
from pytest_kvquant.numerics import stats
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.numerics.stats import Interval
from pytest_kvquant.results.gate import Gate


def judge_kl_mean(
    x: npt.ArrayLike, budget: float, rules: Rules, *, name: str = "kl_mean", title: str = "mean KL"
) -> Gate:
    """Mean KL against its budget.

    Args:
        x: mean KL(reference ‖ cell) of each chunk, nats, shape (n_chunks,). Rounding below zero
            is clipped.
        budget: nats, >= 0.
        name: of the gate whose figure it is: others decide a KL per chunk so too.
        title: what its rule calls that figure.

    Raises:
        ValueError: for non-finite x or a budget that is negative or not finite.
    """
    raw = figures_that_count(x, budget, rules)
    figures = np.maximum(raw, 0)

    def needed(seen: F64, now: Interval) -> int | None:
        if now.figure <= 0 or budget <= 0 or seen.size == 1:
            return None
        # On the scale on which the PASS rule works: the plain one promises too few chunks.
        spread = float(seen.std(ddof=1)) / now.figure
        return stats.chunks_needed(math.log(now.figure), spread, math.log(budget))

    quantity = Quantity(
        name=name,
        unit="nats",
        title=title,
        bound="the upper end of its log-scale t interval",
        interval=lambda seen: stats.log_t_interval(seen, rules.level),
        needed=needed,
    )
    return judge_by_e_value(figures, budget, rules, quantity, identity=raw)


MEASURABLE = 10.0
"""Noise floors that a budget of KL has at least."""


def calibrated(shown: Shown) -> float | None:
    """By the prefill path; never under what can be measured. ``None`` of an unmeasured cell."""
    if shown.cell.quality is None:
        return None
    seen = shown.cell.quality.prefill
    return max(shown.times(seen.kl_mean, seen.kl_mean_chunk_se), MEASURABLE * shown.noise)


@gate(
    "kl_mean",
    title="mean KL",
    short="KL",
    test="test_kl_divergence",
    group="quality",
    order=1,
    budget=Budget(
        "kl_mean",
        "nats",
        # More than clamping takes from 150,000 tokens, each 16 nats below the largest:
        # 150,000 · e^-16 = 0.017.
        rounded=0.02,
        drift=lambda kl: kl,
        calibrated=calibrated,
        least=1e-4,
    ),
)
def kl_mean(seen: Figures, given: Given) -> Gate:
    """Mean KL(f16 ‖ pair) is within its budget.

    Why: KL weighs the whole distribution of the next token. PPL can improve by 42 % where KL says
    that the model is broken, so this is the first gate.

    Healthy: q8_0 0.0003 to 0.002 nats, q4_0 0.008 to 0.03, turbo4 0.013, turbo3 0.02 to 0.03;
    models differ by a factor of ten.

    A failure means: the pair changes what the model says by more than was accepted. Read the
    suspect in the failure's text; without one, compare with a baseline: a figure that was always
    there is a matter of the budget, not of the kernel.
    """
    return judge_kl_mean(seen["kl"], given.budgets["kl_mean"], given.rules)
