"""Share of decisive flips against the share allowed."""

from __future__ import annotations

import math

import numpy.typing as npt

from pytest_kvquant.checks.budget import SURE, Budget, Shown
from pytest_kvquant.checks.declaration import Figures, Given, gate
from pytest_kvquant.checks.e_value import judge_share, share_quantity
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate

FLIP_DESIGN_EFFECT = 1.5
"""D0 of decisive flips, which cluster little."""


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
    quantity = share_quantity(
        "top1_flips", "the share of decisive flips", FLIP_DESIGN_EFFECT, m_tok, budget, rules
    )
    return judge_share(x, budget, rules, quantity, kl)


def _calibrated(shown: Shown) -> float | None:
    """From the share of all tokens, with the standard error of a share."""
    if shown.cell.quality is None:
        return None
    seen = shown.cell.quality.prefill
    flips = shown.cell.per_chunk.get("flips", ())
    share = sum(flips) / len(flips) if flips else 1 - seen.top1
    error = math.sqrt(share * (1 - share) / max(1, seen.tokens))
    return min(1.0, shown.margin * (share + SURE * error))


@gate(
    "top1_flips",
    title="decisive top-1 flips",
    short="flips",
    test="test_top1_agreement",
    group="quality",
    order=4,
    budget=Budget(
        "top1_flips",
        "share",
        rounded=0.01,
        drift=lambda _: 0.01,
        calibrated=_calibrated,
        least=5e-3,
    ),
    rule="share",
)
def top1_flips(seen: Figures, given: Given) -> Gate:
    """Few enough tokens changed their most likely successor.

    Why: greedy text and tool calls follow the argmax. Ties that break differently are no fault of
    a kernel, so only flips beyond the tie band count.

    Healthy: 1 % for q8_0, 4 to 6 % for 4 bits, 10 % for 3 bits.

    A failure means: the pair answers differently where f16 was sure.
    """
    return judge_top1_flips(
        seen["flips"], given.budgets["top1_flips"], given.rules, m_tok=given.scored, kl=seen["kl"]
    )
