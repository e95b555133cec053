"""No other cell with another census has the same logits."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Cell, Check


def check_distinct(twins: Iterable[str], unseen: Iterable[str] = ()) -> Check:
    """No other cell with another census has the very same logits.

    Args:
        unseen: pairs with the same logits where what a cache holds could not be read.
    """
    names, unknown = ", ".join(twins), ", ".join(unseen)
    if unknown and not names:
        return fact(
            "distinct",
            "inconclusive",
            f"bit-identical logits to {unknown}, and what the caches hold could not be read",
        )
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
    return check_distinct(
        twins(subject.cell, subject.others), unseen_twins(subject.cell, subject.others)
    )


def twins(cell: Cell, others: Iterable[Cell]) -> list[str]:
    """Cells with bit-identical logits, as far as both were drawn, and another census."""
    return [
        other.pair
        for other in _identical(cell, others)
        if _held(cell) and _held(other) and _held(cell) != _held(other)
    ]


def unseen_twins(cell: Cell, others: Iterable[Cell]) -> list[str]:
    """Cells with bit-identical logits of which nobody knows whether they hold the same."""
    return [other.pair for other in _identical(cell, others) if not _held(cell) or not _held(other)]


def _identical(cell: Cell, others: Iterable[Cell]) -> list[Cell]:
    return [
        other
        for other in others
        if other.pair != cell.pair
        and other.digests
        and cell.digests
        and all(a == b for a, b in zip(cell.digests, other.digests, strict=False))
    ]


def _held(cell: Cell) -> object:
    """What its cache holds; nothing where its state was not readable."""
    if cell.census is None:
        return cell.pair
    if cell.census.kind == "unreadable":
        return None
    return [(layer.k, layer.v) for layer in cell.census.layers]
