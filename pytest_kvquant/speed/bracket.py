"""Where two caches do not fit: f16, the cell, f16, in a process each; or the cell without f16."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_kvquant import format
from pytest_kvquant.config.floors import Floors
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics import rounds
from pytest_kvquant.results.speed import title
from pytest_kvquant.speed.plan import SpeedPlan
from pytest_kvquant.speed.series import RoundSeries, SpeedFinding, ended_by, judge
from pytest_kvquant.speed.streams import Account, SpeedSetup, TimedSide, sides, streams

Tests = Mapping[int, Sequence[str]]
"""Kinds of test by depth."""


class _Alone(NamedTuple):
    """Samples of one context alone in its process."""

    ns: list[int]
    repeats: int
    seconds: float


Samples = dict[tuple[str, int], _Alone]


def take_bracketed(
    tests: Tests, pair: Pair, plan: SpeedPlan, setup: SpeedSetup, account: Account
) -> list[RoundSeries]:
    """f16, the cell, f16: a process each, as many samples as a deciding series needs at least.

    Returns:
        What was timed: without the depths beyond a cliff.
    """
    size = plan.rules.least
    own, reference = sides(pair, setup)
    told = setup.watch()
    first = _sweep(reference, tests, plan, size, setup, account)
    cell = _sweep(own, tests, plan, 2 * size, setup, account, beside=first)
    visited: dict[int, list[str]] = {}
    for kind, depth in cell:
        visited.setdefault(depth, []).append(kind)
    second = _sweep(reference, visited, plan, size, setup, account)
    found: list[RoundSeries] = []
    for (kind, depth), b in cell.items():
        a1, a2 = first[kind, depth], second[kind, depth]
        taken = [
            (a1.ns[at], b.ns[2 * at], b.ns[2 * at + 1], a2.ns[at]) for at in range(len(b.ns) // 2)
        ]
        repeats = b.repeats, a1.repeats
        found.append(RoundSeries(kind, plan.count(kind), depth, taken, repeats, b.seconds))
    disturbed = told()
    return [series._replace(disturbed=disturbed) for series in found]


def judge_bracketed(
    series: RoundSeries, pair: Pair, plan: SpeedPlan, setup: SpeedSetup
) -> SpeedFinding:
    """As :func:`judge`; but what drifted between the two times of f16 shows nothing."""
    finding = judge(series, pair, plan, setup)
    if finding.rule == "cliff" or series.steady:
        return finding
    return finding._replace(
        verdict="inconclusive",
        text=f"{finding.text}; f16/f16 before and after differ too much to tell",
    )


def take_alone(
    tests: Tests, reason: str, pair: Pair, plan: SpeedPlan, setup: SpeedSetup, account: Account
) -> list[tuple[RoundSeries, SpeedFinding]]:
    """The cell's own speed where f16 does not fit: known, but nothing to hold it against.

    Args:
        reason: why f16 does not fit.
    """
    own, _ = sides(pair, setup)
    found: list[tuple[RoundSeries, SpeedFinding]] = []
    for (kind, depth), b in _sweep(own, tests, plan, plan.rules.least, setup, account).items():
        count = plan.count(kind)
        series = RoundSeries(
            kind, count, depth, [], (b.repeats, 0), b.seconds, alone_ns=tuple(b.ns)
        )  # fmt: skip
        speed = format.speed(1e9 * count / statistics.median(b.ns))
        text = f"{series.name} runs at {speed} tok/s, without a ratio: {reason}"
        found.append((series, SpeedFinding("alone", "inconclusive", text)))
    return found


def _sweep(
    side: TimedSide,
    tests: Tests,
    plan: SpeedPlan,
    size: int,
    setup: SpeedSetup,
    account: Account,
    *,
    beside: Samples | None = None,
) -> Samples:
    """Samples at each depth; a kind that takes twice as long as ``beside``'s goes no deeper."""
    taken: Samples = {}
    ended: set[str] = set()
    with streams((side,), plan.context(max(tests)), setup, (account,)) as worker:
        for depth, kinds in tests.items():
            left = [kind for kind in kinds if kind not in ended]
            if not left:
                break
            account.activity = f"filling to depth {depth:,}, {side.name} alone"
            worker.extend_to(depth, (0,))
            for kind in left:
                account.activity = (
                    f"timing {title(kind, plan.count(kind), depth)}, {side.name} alone"
                )
                begun = time.perf_counter()
                (repeats,) = worker.warm(kind, plan.count(kind), plan.seconds, (0,)).repeats
                known = beside[kind, depth].ns if beside else []
                wanted, ns = size, list[int]()
                while len(ns) < wanted:
                    ns += worker.samples(kind, plan.count(kind), (0, 0))
                    if known and _is_cliff(ns, known, setup.floors(side.pair, depth)):
                        wanted = len(ns)
                        ended |= ended_by(kind, side.pair, depth, plan, setup)
                taken[kind, depth] = _Alone(ns, repeats, time.perf_counter() - begun)
    return taken


def _is_cliff(ns: Sequence[int], known: Sequence[int], floors: Floors) -> bool:
    """Whether the first samples, all of them, are slower than f16's slowest by that much."""
    return len(ns) == 2 * rounds.CLIFF_ROUNDS and min(ns) * floors.cliff > max(known)
