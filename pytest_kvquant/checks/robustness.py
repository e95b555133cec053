"""Text as people really type it costs a cell no more than clean text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_kvquant.checks.budget import Budget
from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.numerics.robustness import judge_ratio
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.texts import Robustness

ALPHA = 0.01
"""Error of each side, over all disturbances of all cells."""


def compared(
    disturbance: str, clean: Sequence[float], disturbed: Sequence[float], most: float, tests: int
) -> Robustness:
    """One disturbance, judged.

    Args:
        clean, disturbed: mean KL of chunks, the same ones in the same order; nats.
        most: KL ratio that is still fine.
        tests: disturbances times cells of the run.
    """
    count = min(len(clean), len(disturbed))
    one, other = np.asarray(clean[:count]), np.asarray(disturbed[:count])
    judged = judge_ratio(one, other, most=most, alpha=ALPHA / max(1, tests))
    return Robustness(
        disturbance=disturbance,
        chunks=count,
        clean=float(one.mean()),
        disturbed=float(other.mean()),
        **judged._asdict(),
    )


@check("robustness", title="disturbed text", test="test_robustness", group="workloads",
       needs="workloads", order=3,
       budget=Budget("robustness", "ratio", default=3.0, identical=1.0))  # fmt: skip
def robustness(subject: Subject) -> Check | None:
    """On text with typing errors, other case or doubled spaces KL grows no more than allowed.

    Why: people mistype. Rare tokens have larger rows of K, and a quantizer that just copes with
    clean text shows it there first.

    Healthy: 0.8 to 1.5 times the KL of the same chunks as they are.

    A failure means: look at the types' range: outliers of K that clipping or a shared scale cuts.
    """
    found = subject.cell.robustness
    if not found:
        return None
    verdicts = {one.verdict for one in found}
    verdict = next(word for word in ("fail", "inconclusive", "pass") if word in verdicts)
    most = subject.budgets["robustness"]
    return fact(
        "robustness",
        verdict,
        f"KL on disturbed text, {most:g} times that of clean text at most: "
        + "; ".join(one.text for one in found),
        figure=max((one.ratio for one in found if one.ratio is not None), default=None),
        limit=most,
    )
