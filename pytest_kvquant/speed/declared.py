"""Cliffs that the configuration declares and that are gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.speed import SpeedCell


def with_gone_cliffs(
    cell: SpeedCell, depths: Sequence[int], is_declared: Callable[[Pair, str, int], bool]
) -> SpeedCell:
    """The cell, failed where a declared cliff shows at no depth at which it is declared.

    Of a depth that was not visited, or was left undecided, nothing is said.

    Args:
        depths: those that the run times.
        is_declared: whether ``pp`` or ``tg`` of a pair is declared to be a cliff at a depth.
    """
    pair = Pair.parse(cell.pair)
    verdicts = {(test.kind, test.n_depth): test.verdict for test in cell.tests}

    def is_gone(kind: str) -> bool:
        declared = [depth for depth in depths if is_declared(pair, kind, depth)]
        found = {verdicts.get((kind, depth)) for depth in declared}
        return bool(declared) and found <= {"pass", "fail"}

    gone = tuple(filter(is_gone, dict.fromkeys(test.kind for test in cell.tests)))
    if not gone:
        return cell
    verdict = "fail" if cell.verdict in ("pass", "inconclusive") else cell.verdict
    return msgspec.structs.replace(cell, gone=gone, verdict=verdict)
