"""What ``[expect]`` declares of a pair, in one meaning for quality, memory and speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from pytest_kvquant.matrix import Pair
from pytest_kvquant.report.speed import SpeedCell
from pytest_kvquant.settings import MIXED, Expect


def substitutes(expect: Mapping[str, Expect]) -> dict[str, str]:
    """Declared substitutions: a pattern of pairs, the pair held instead or :data:`MIXED`."""
    return {
        pattern: entry.substituted
        for pattern, entry in expect.items()
        if entry.substituted is not None
    }


def substitute(pair: Pair, declared: Mapping[str, str]) -> str | None:
    """The pair that the cache of ``pair`` is declared to hold instead, or :data:`MIXED`.

    Later patterns win. One that matches its own substitute, as ``*/turbo3`` does ``q8_0/turbo3``,
    declares nothing of that one.

    Args:
        declared: as from :func:`substitutes`.
    """
    found = [other for pattern, other in declared.items() if pair.matches(pattern)]
    return found[-1] if found and found[-1] != str(pair) else None


def held_as(
    layers: Iterable[tuple[str, str | None]], pair: Pair, declared: str | None
) -> dict[Pair, None]:
    """The different pairs that the layers of a cache hold, in their order.

    Args:
        layers: K and V type of each; where the architecture stores no V, it counts as the wanted.
        declared: what :func:`substitute` said.
    """
    wanted = Pair.parse(declared) if declared not in (None, MIXED) else pair
    return dict.fromkeys(Pair(k, wanted.v if v is None else v) for k, v in layers)


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
