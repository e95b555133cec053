"""Many gates, one exit code: which failing gates count, and when more chunks change nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kvquant.numerics import stats
from pytest_kvquant.results.gate import Gate


def holm_exit(
    gates: Sequence[Gate], alpha: float = 0.01, *, unmeasured: int = 0
) -> tuple[bool, ...]:
    """Which failing gates of a whole run count for its exit code.

    Holm over the p-values of all gates of the run, so that a run in which every figure is
    within budget exits non-zero with probability at most `alpha`, whatever the number of cells. A
    failing gate that is not kept "would have failed alone". A census counts by its evidence as
    every other gate: that the mean of the chunks at hand is over the budget is a fact, and among
    many figures close to their budgets a likely one.

    Args:
        gates: every gate of the run, whatever its verdict: each counts for the correction.
        alpha: family-wise error.
        unmeasured: gates of the run that are still to be judged; each counts with p = 1.

    Returns:
        One flag per gate, in the order given: True where it fails and is kept.
    """
    rejected = stats.holm([gate.p_value for gate in gates] + [1.0] * unmeasured, alpha)
    return tuple(
        gate.verdict == "fail" and bool(kept)
        for gate, kept in zip(gates, rejected[: len(gates)], strict=True)
    )


def settled(gate: Gate, figures_in_run: int) -> bool:
    """Whether more chunks could no longer change what this gate does to the exit code.

    A FAIL alone needs p <= alpha; one that Holm keeps whatever the others say needs
    p <= alpha/m. A cell that stopped drawing at the first would rarely reach the second.

    Args:
        gate: as judged so far.
        figures_in_run: m, the number of gates in the run.
    """
    if gate.verdict == "fail":
        return gate.census or gate.p_value <= gate.alpha / figures_in_run
    return gate.verdict == "pass"
