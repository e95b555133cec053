"""No other cell with another census has the same logits."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Cell, Check


def check_distinct(twins: Iterable[str]) -> Check:
    """No other cell with another census has the very same logits."""
    names = ", ".join(twins)
    return fact(
        "distinct",
        "fail" if names else "pass",
        f"bit-identical logits to {names}, although the caches hold other types: one of them is "
        "not what its name says"
        if names
        else "no other cell has the same logits",
    )


@check("distinct", title="distinct from other pairs", test="test_distinct", group="identity",
       needs="matrix", order=2)  # fmt: skip
def distinct(subject: Subject) -> Check | None:
    """No other pair has the very same logits: the option did something.

    Why: two pairs that agree to the last bit although their caches hold other types are one pair
    under two names.

    A failure means: one of the two names does nothing in this build.
    """
    if not subject.cell.gates:
        return None
    return check_distinct(twins(subject.cell, subject.others))


def twins(cell: Cell, others: Iterable[Cell]) -> list[str]:
    """Cells with bit-identical logits, as far as both were drawn, and another census."""
    return [
        other.pair
        for other in others
        if other.pair != cell.pair
        and other.digests
        and cell.digests
        and all(a == b for a, b in zip(cell.digests, other.digests, strict=False))
        and _held(cell) != _held(other)
    ]


def _held(cell: Cell) -> object:
    return [(layer.k, layer.v) for layer in cell.census.layers] if cell.census else cell.pair
