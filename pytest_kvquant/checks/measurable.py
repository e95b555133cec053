"""The budget is large enough to be told from noise."""

from __future__ import annotations

from pytest_kvquant.checks.facts import FLOOR_FACTOR, _check
from pytest_kvquant.results.cell import Check


def check_measurable(budget: float, floor: float) -> Check:
    """The budget is large enough to be told from the machine's noise."""
    least = FLOOR_FACTOR * floor
    measurable = budget == 0.0 or budget >= least
    return _check(
        "measurable",
        "pass" if measurable else "fail",
        f"the noise floor is KL {floor:.2g}"
        if measurable
        else f"a budget of KL {budget:g} is not measurable here: f16 against itself shows "
        f"{floor:.2g}, and a budget takes {FLOOR_FACTOR:g} times that ({least:.2g})",
        figure=budget,
        limit=least,
    )
