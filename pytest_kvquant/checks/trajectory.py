"""Greedy text agrees with that of f16."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_kvquant.checks.facts import _check
from pytest_kvquant.results.cell import Check


def check_trajectory(agreement: float, floor: float, first: Iterable[int]) -> Check:
    """Greedy text agrees with f16's for long enough."""
    places = ", ".join(map(str, first))
    return _check(
        "trajectory",
        "pass" if agreement >= floor else "fail",
        f"greedy text agrees for {agreement:.0%} of its length (first difference after "
        f"{places} tokens); the floor is {floor:.0%}",
        figure=agreement,
        limit=floor,
    )
