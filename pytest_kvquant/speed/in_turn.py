"""Cells and one f16 in one process, in turn: A B C C B A, so that a drift of the machine cancels.

All caches ascend together, and each depth is filled once. f16 is timed once for all cells; one that
is decided takes no further rounds, and one that is off the fast path goes no deeper.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics import rounds
from pytest_kvquant.numerics.rounds import RoundRules
from pytest_kvquant.results.speed import title
from pytest_kvquant.speed.methods import Method
from pytest_kvquant.speed.plan import SpeedPlan
from pytest_kvquant.speed.series import Round, RoundSeries, SpeedFinding, cool_down, judge, kept
from pytest_kvquant.speed.streams import Account, SpeedSetup, Streams, sides, streams


class Sweeping(Protocol):
    """What has been found of a cell so far, and what is left to time."""

    pair: Pair
    account: Account

    def open(self, depths: Sequence[int]) -> Mapping[int, Sequence[str]]:
        """Tests that are left at these depths."""

    def before(self, kind: str, depth: int) -> float | None:
        """The ratio at the last depth before this one at which it is known."""

    def enter(self, series: RoundSeries, finding: SpeedFinding, method: Method) -> None:
        """Something was found."""

    def close(self, depth: int) -> None:
        """All was timed at this depth."""


class _Told:
    """Says how far the timing of a group is.

    Args:
        tests: that it takes at most.
    """

    def __init__(self, setup: SpeedSetup, tests: int) -> None:
        self._setup, self._tests = setup, tests
        self._begun, self._name = 0, ""

    def begin(self, name: str) -> None:
        """The next test begins."""
        self._begun, self._name = self._begun + 1, name
        self.round(0.0)

    def round(self, share: float) -> None:
        """How far it is, in the rounds that it takes at least."""
        done = self._begun - 1 + min(share, 1.0)
        self._setup.told(self._name, min(done / self._tests, 1.0))


class TimedCell(NamedTuple):
    """A cell of those in turn."""

    stream: int
    """Its number; f16's is the one after the last cell's."""
    pair: Pair
    before: float | None
    """The ratio at the depth before, if there was one."""


def sweep(
    cells: Sequence[Sweeping], depths: Sequence[int], plan: SpeedPlan, setup: SpeedSetup
) -> None:
    """Time cells at all these depths, each as far as it goes.

    Raises:
        CellError: the process ended, or a cache holds other types than it was made for.
    """
    accounts = [cell.account for cell in cells]
    reference = len(cells)
    both = [sides(cell.pair, setup) for cell in cells]
    together = [*(own for own, _ in both), both[0][1]]
    told = _Told(setup, len(depths) * len(plan.kinds))
    with streams(together, plan.context(max(depths)), setup, accounts) as worker:
        for depth in depths:
            opened = ((at, cell.open([depth])) for at, cell in enumerate(cells))
            going = {at: tests[depth] for at, tests in opened if tests}
            if not going:
                continue
            _say(accounts, f"filling to depth {depth:,}")
            worker.extend_to(depth, (*going, reference))
            for kind in plan.kinds:
                left = [at for at, kinds in going.items() if kind in kinds]
                if not left:
                    continue
                told.begin(title(kind, plan.count(kind), depth))
                _say(accounts, f"timing {title(kind, plan.count(kind), depth)}")
                asked = [
                    TimedCell(at, cells[at].pair, cells[at].before(kind, depth)) for at in left
                ]
                found = take(worker, kind, depth, asked, reference, plan, setup, told)
                if any(series.disturbed for series in found):
                    cool_down(found)
                    found = take(worker, kind, depth, asked, reference, plan, setup)
                for at, series in zip(left, found, strict=True):
                    finding = judge(series, cells[at].pair, plan, setup)
                    cells[at].enter(series, finding, "interleaved")
            for at in going:
                cells[at].close(depth)


def take(
    worker: Streams,
    kind: str,
    depth: int,
    cells: Sequence[TimedCell],
    reference: int,
    plan: SpeedPlan,
    setup: SpeedSetup,
    told: _Told | None = None,
) -> list[RoundSeries]:
    """Rounds of one test at the depth that the streams are at, of each cell until they decide.

    Args:
        reference: number of f16's stream.
    """
    begun, count = time.perf_counter(), plan.count(kind)
    every = [*(cell.stream for cell in cells), reference]
    warmed = worker.warm(kind, count, plan.seconds, every)
    repeats = dict(zip(every, warmed.repeats, strict=True))
    taken: dict[int, list[Round]] = {cell.stream: [] for cell in cells}
    limits = {cell.stream: _limits(cell, kind, depth, plan, setup) for cell in cells}
    company, going = setup.watch(), list(cells)
    while going:
        order = [reference, *(cell.stream for cell in going)]
        ns = worker.samples(kind, count, [*order, *reversed(order)])
        for at, cell in enumerate(going, 1):
            taken[cell.stream].append((ns[0], ns[at], ns[-1 - at], ns[-1]))
        going = [
            cell
            for cell in going
            if not _enough(taken[cell.stream], limits[cell.stream], plan.rules)
        ]
        if told is not None:
            told.round(max(map(len, taken.values())) / plan.rules.least)
    seconds, disturbed = (time.perf_counter() - begun) / len(cells), company()
    return [
        RoundSeries(
            kind=kind,
            tokens=count,
            depth=depth,
            rounds=taken[cell.stream],
            repeats=(repeats[cell.stream], repeats[reference]),
            parts=warmed.parts,
            seconds=seconds,
            before=cell.before,
            by_depth=_by_depth(worker.profile.get(kind, ()), cell.stream, reference),
            disturbed=disturbed,
        )
        for cell in cells
    ]


def _by_depth(
    profile: Iterable[Sequence[float]], stream: int, reference: int
) -> tuple[tuple[float, ...], ...]:
    """Depth, and a token's time of a cell and of f16 there, as far as the cell went."""
    points = ((depth, ns[stream], ns[reference]) for depth, *ns in profile)
    return tuple(point for point in points if point[1] > 0)


class _Limits(NamedTuple):
    """What the ratios of a test are asked."""

    cliff: float
    ratios: tuple[float, ...]


def _limits(cell: TimedCell, kind: str, depth: int, plan: SpeedPlan, setup: SpeedSetup) -> _Limits:
    floors = setup.floors(cell.pair, depth)
    of_stored = kept(setup.stored.find(cell.pair, kind, plan.count(kind), depth), floors)
    of_before = None if cell.before is None else cell.before * (1 - floors.slowdown)
    given = floors.ratio(kind), of_stored, of_before
    return _Limits(floors.cliff, tuple(one for one in given if one is not None))


def _enough(taken: Sequence[Round], limits: _Limits, rules: RoundRules) -> bool:
    """Whether a cell's rounds decide all that they are asked, or are as many as there may be."""
    log_ratios = [rounds.log_ratio(*times) for times in taken]
    if rounds.is_cliff(log_ratios, limits.cliff) or len(log_ratios) >= rules.most:
        return True
    return all(
        rounds.decide(log_ratios, limit, rules).verdict != "inconclusive" for limit in limits.ratios
    )


def _say(accounts: Iterable[Account], activity: str) -> None:
    for account in accounts:
        account.activity = activity
