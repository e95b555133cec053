"""Greedy text agrees with that of f16."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_kvquant.checks.budget import Budget
from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Check


def check_trajectory(agreement: float, floor: float, first: Iterable[int]) -> Check:
    """Greedy text agrees with f16's for long enough."""
    places = ", ".join(map(str, first))
    return fact(
        "trajectory",
        "pass" if agreement >= floor else "fail",
        f"greedy text agrees for {agreement:.0%} of its length (first difference after "
        f"{places} tokens); the floor is {floor:.0%}",
        figure=agreement,
        limit=floor,
    )


@check(
    "trajectory",
    title="greedy text",
    test="test_greedy_trajectory",
    group="paths",
    needs="trajectory",
    order=1,
    budget=Budget("trajectory", "share", default=0.01, identical=1.0, drift=lambda _: 0.25),
)
def trajectory(subject: Subject) -> Check | None:
    """Greedy text agrees with f16's for long enough.

    Why: an error that is small per token adds up in text that is generated.

    Healthy: q8_0 agrees to the end as a rule, 4 bits for a third of a short text.

    A failure means: see the decode path's KL: it says by how much, this says how soon.
    """
    text = subject.cell.trajectory
    if text is None:
        return None
    return check_trajectory(text.agreement, subject.budgets["trajectory"], text.first_divergence)
