"""Share of tokens with a large KL against the share allowed."""

from __future__ import annotations

import numpy.typing as npt

from pytest_kvquant.checks.budget import Budget, Shown
from pytest_kvquant.checks.declaration import Figures, Given, gate
from pytest_kvquant.checks.e_value import judge_share, share_quantity
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate

TAIL_DESIGN_EFFECT = 4.0
"""D0 of the KL tail: large KLs come in runs of neighbouring tokens."""


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
    quantity = share_quantity(
        "kl_tail",
        f"the share of tokens over {over:g} nats",
        TAIL_DESIGN_EFFECT,
        m_tok,
        budget,
        rules,
    )
    return judge_share(x, budget, rules, quantity, kl)


TAIL = 0.0125
"""Share of tokens that may lie above the margin times the KL that one in a hundred exceeds."""


def _large(shown: Shown) -> float | None:
    """The margin times the KL that one token in a hundred exceeds, nats."""
    quality = shown.cell.quality
    return None if quality is None else shown.margin * quality.prefill.kl_p99


@gate(
    "kl_tail",
    title="KL tail",
    short="KL tail",
    test="test_kl_tail",
    group="quality",
    order=2,
    budget=Budget(
        "kl_tail", "share", rounded=0.01, drift=lambda _: 0.02, calibrated=lambda _: TAIL
    ),
    bounds=(
        Budget(
            "kl_tail_over",
            "nats",
            rounded=0.15,
            drift=lambda kl: 20 * kl,
            calibrated=_large,
            least=1e-3,
        ),
    ),
    rule="share",
)
def kl_tail(seen: Figures, given: Given) -> Gate:
    """Few enough tokens have a large KL.

    Why: a fault in one token of two hundred does not move the mean, and spoils every long text.

    Healthy: under 1 % of tokens over twenty times the mean KL.

    A failure means: some tokens are far off while the mean may look fine: a corner of a kernel
    (last rows of a block, one head, a window's edge) rather than a coarse type.
    """
    budgets = given.budgets
    return judge_kl_tail(
        seen["tail"],
        budgets["kl_tail"],
        given.rules,
        m_tok=given.scored,
        over=budgets["kl_tail_over"],
        kl=seen["kl"],
    )
