"""The budget is large enough to be told from noise."""

from __future__ import annotations

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import FLOOR_FACTOR, fact, unseen
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Check


def check_measurable(budget: float, floor: float) -> Check:
    """The budget is large enough to be told from the machine's noise."""
    least = FLOOR_FACTOR * floor
    measurable = budget == 0.0 or budget >= least
    return fact(
        "measurable",
        "pass" if measurable else "fail",
        f"the noise floor is KL {floor:.2g}"
        if measurable
        else f"a budget of KL {budget:g} is not measurable here: f16 against itself shows "
        f"{floor:.2g}, and a budget takes {FLOOR_FACTOR:g} times that ({least:.2g})",
        figure=budget,
        limit=least,
    )


@check("measurable", title="measurable budget", test="test_measurable", group="identity",
       needs="prefill", order=5, unseen="inconclusive")  # fmt: skip
def measurable(subject: Subject) -> Check:
    """The budget can be told from the machine's noise.

    Why: f16 against itself, with another batch and another number of threads, shows what cannot be
    a fault. A budget close to that decides nothing.

    A failure means: raise the budget to ten times the noise floor, or find out why f16 is noisy.
    """
    if subject.floor is None:
        return unseen("measurable", "what f16 shows against itself")
    budget = subject.budgets["kl_mean"] if subject.kl_owned else 0.0
    return check_measurable(budget, subject.floor.kl)
