"""No other cell with another census has the same logits."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_kvquant.checks.facts import _check
from pytest_kvquant.results.cell import Check


def check_distinct(twins: Iterable[str]) -> Check:
    """No other cell with another census has the very same logits."""
    names = ", ".join(twins)
    return _check(
        "distinct",
        "fail" if names else "pass",
        f"bit-identical logits to {names}, although the caches hold other types: one of them is "
        "not what its name says"
        if names
        else "no other cell has the same logits",
    )
