"""The budget is large enough to be told from noise."""

from __future__ import annotations

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import FLOOR_FACTOR, fact, unseen
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Check

UNUSUAL = 1e-3
"""Nats: f16 of the embedded model shows up to 5e-4 on CPUs, where kernels of batches differ."""


def check_measurable(budget: float, floor: float, *, packaged: bool = False) -> Check:
    """The budget is large enough to be told from the machine's noise.

    Args:
        packaged: the budget is nobody's choice: on a machine whose f16 shows no more than usual it
            is left open, not failed.
    """
    least = FLOOR_FACTOR * floor
    if budget == 0.0 or budget >= least:
        return fact("measurable", "pass", f"the noise floor is KL {floor:.2g}",
                    figure=budget, limit=least)  # fmt: skip
    text = (
        f"a budget of KL {budget:g} is not measurable here: f16 against itself shows "
        f"{floor:.2g}, and a budget takes {FLOOR_FACTOR:g} times that ({least:.2g})"
    )
    usual = packaged and floor <= UNUSUAL
    more = "; it is the package's, for its own model: [budgets] takes one for this batch"
    verdict, text = ("inconclusive", text + more) if usual else ("fail", text)
    return fact("measurable", verdict, text, figure=budget, limit=least)


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
    return check_measurable(budget, subject.floor.kl, packaged=subject.kl_packaged)
