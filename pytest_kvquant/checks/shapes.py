"""The same tokens in another batch shape, and after save and restore."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_kvquant.checks.facts import FLOOR_FACTOR, _check
from pytest_kvquant.results.cell import Check

BUDGET_SHARE = 0.1
"""Two shapes of one cell may differ by this share of its KL budget: a rounding that falls the
other way moves a quantized value by a whole step, which f16 does not know."""


def check_shapes(
    kl: Mapping[str, float], control: Mapping[str, float], budget: float
) -> tuple[Check, Check]:
    """The same tokens in another batch shape, and after save and restore, give the same logits.

    Args:
        kl: mean KL between shapes of the cell, by shape; ``restored`` is the one after restore.
        control: the same of f16.
        budget: the cell's budget for mean KL.
    """
    limits = {
        name: max(FLOOR_FACTOR * control.get(name, 0.0), BUDGET_SHARE * budget) for name in kl
    }
    # NaN is a disagreement: hence not (kl <= limit).
    wrong = [name for name in kl if name != "restored" and not kl[name] <= limits[name]]
    worst = max(
        (name for name in kl if name != "restored"), key=lambda name: kl[name], default=None
    )
    shapes = _check(
        "shapes",
        "fail" if wrong else "pass",
        _disagreement(wrong, kl, limits) if wrong else "every batch shape gives the same logits",
        figure=kl[worst] if worst else None,
        limit=limits[worst] if worst else None,
    )
    same = kl["restored"] <= limits["restored"]
    restore = _check(
        "restore",
        "pass" if same else "fail",
        "a saved and restored sequence goes on as if uninterrupted"
        if same
        else f"after save and restore the logits differ by KL {kl['restored']:.2g}, allowed are "
        f"{limits['restored']:.2g}: the serialized state is not the whole cache",
        figure=kl["restored"],
        limit=limits["restored"],
    )
    return shapes, restore


def _disagreement(wrong: list[str], kl: Mapping[str, float], limits: Mapping[str, float]) -> str:
    parts = [f"{name}: KL {kl[name]:.2g}, allowed {limits[name]:.2g}" for name in wrong]
    return f"the same tokens give other logits in another batch shape ({'; '.join(parts)})"
