"""Mean KL by the decode path against its budget."""

from __future__ import annotations

from pytest_kvquant.checks.budget import Budget, Shown
from pytest_kvquant.checks.declaration import Figures, Given, gate
from pytest_kvquant.checks.kl_mean import calibrated as by_prefill
from pytest_kvquant.checks.kl_mean import judge_kl_mean
from pytest_kvquant.results.gate import Gate


def _calibrated(shown: Shown) -> float | None:
    """Never under that of the prefill path."""
    quality = shown.cell.quality
    if quality is None or quality.decode is None:
        return None
    own = shown.times(quality.decode.kl_mean, quality.decode.kl_mean_chunk_se)
    return max(own, by_prefill(shown) or 0.0)


@gate(
    "decode_kl_mean",
    title="mean KL by the decode path",
    short="decode KL",
    test="test_decode_path",
    group="paths",
    path="decode",
    order=1,
    # Twice that of the prefill path: fewer tokens.
    budget=Budget("decode_kl_mean", "nats", follows=("kl_mean", 2.0), calibrated=_calibrated),
)
def decode_kl_mean(seen: Figures, given: Given) -> Gate:
    """Mean KL with one token at a time is within its budget.

    Why: one token at a time runs other kernels than a prompt does. A decode kernel that zeroed half
    of V passed every perplexity, because perplexity is measured in batches.

    Healthy: as the mean KL of the prefill path, with more scatter: fewer tokens are decoded.

    A failure means: text that is generated differs from f16's; where the prefill path passes, the
    kernels for single tokens are to blame.
    """
    budget = given.budgets["decode_kl_mean"]
    return judge_kl_mean(seen["kl"], budget, given.rules, name="decode_kl_mean")
