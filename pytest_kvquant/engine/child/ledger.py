"""Child side: findings summed up by corner; failures kept with the inputs that show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_kvquant.engine.child.finding import Corner, NodeFinding
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.engine.messages.kernels import CornerSeen, NodeWrong

MOST_FAILURES = 4
"""Failures of one operation that are told; the others are counted."""


class Ledger:
    """What a watch has found so far."""

    def __init__(self) -> None:
        self._corners: dict[Corner, list[float]] = {}
        self.failures: list[NodeWrong] = []
        self.keep: Callable[[NodeFinding, Node], str | None] | None = None
        """Writes a reproducer of a wrong node; its path."""

    def add(self, found: Sequence[NodeFinding], node: Node, _values: Values | None = None) -> None:
        """Take findings about one node."""
        for one in found:
            sums = self._corners.setdefault(one.corner, [0, 0, 0.0, 0.0, 0.0])
            sums[0] += 1
            sums[1] += bool(one.text)
            sums[2] = max(sums[2], one.ratio)
            sums[3] += one.error
            sums[4] = max(sums[4], one.error)
            if one.text:
                self._fail(one, node)

    def _fail(self, one: NodeFinding, node: Node) -> None:
        same = [f for f in self.failures if f.operation == one.corner.operation]
        if len(same) < MOST_FAILURES:
            path = self.keep(one, node) if self.keep is not None and not same else None
            self.failures.append(
                NodeWrong(
                    operation=one.corner.operation,
                    layer=one.layer,
                    node=one.node,
                    tokens=one.corner.tokens,
                    text=one.text,
                    ratio=min(one.ratio, 1e30),
                    reproducer=path,
                )
            )

    def corners(self) -> list[CornerSeen]:
        """One entry a corner: how many nodes, how many wrong, the largest figure over its limit,
        the mean and the largest NMSE."""
        return [
            CornerSeen(
                **corner._asdict(),
                nodes=int(nodes),
                failed=int(failed),
                ratio=_short(ratio),
                error=_short(total / nodes),
                worst=_short(worst),
            )
            for corner, (nodes, failed, ratio, total, worst) in self._corners.items()
        ]


def _short(figure: float) -> float:
    """Four digits: a record has hundreds of corners a pair, and no more digits mean a thing."""
    return float(f"{min(figure, 1e30):.4g}")
