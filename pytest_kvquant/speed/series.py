"""The rounds of one test: taken until they decide, and judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pytest_kvquant import format
from pytest_kvquant.config.floors import Floors
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics import rounds
from pytest_kvquant.numerics.rounds import RoundRules
from pytest_kvquant.results.speed import SpeedVerdict, title
from pytest_kvquant.speed.plan import SpeedPlan
from pytest_kvquant.speed.streams import SpeedSetup, Streams, sides

ABBA = (1, 0, 0, 1)
"""Stream 0 is the cell, stream 1 is f16/f16."""

Round = tuple[int, int, int, int]
"""Nanoseconds of A, B, B, A."""


class SpeedFinding(NamedTuple):
    """One thing that a series shows, good or bad."""

    rule: Literal["cliff", "slowdown", "ratio", "stored", "alone"]
    verdict: SpeedVerdict
    text: str


class RoundSeries(NamedTuple):
    """The rounds of one test in one process."""

    kind: str
    tokens: int
    depth: int
    rounds: list[Round]
    repeats: tuple[int, int]
    seconds: float
    """Wall time, the warm-up included."""
    before: float | None = None
    """The ratio at the depth before, if there was one."""
    alone_ns: tuple[int, ...] = ()
    """Samples of a cell that was timed without f16: then there are no rounds."""

    @property
    def name(self) -> str:
        """As ``llama-bench`` writes it."""
        return title(self.kind, self.tokens, self.depth)

    @property
    def log_ratios(self) -> list[float]:
        """d of each round."""
        return [rounds.log_ratio(*times) for times in self.rounds]

    @property
    def ratio(self) -> float | None:
        """Median speed over that of f16; ``None`` where f16 was not timed."""
        return rounds.median_ratio(self.log_ratios) if self.rounds else None

    @property
    def cell_ns(self) -> list[int]:
        """Samples of the cell, in order."""
        return [ns for _, b1, b2, _ in self.rounds for ns in (b1, b2)] or list(self.alone_ns)

    @property
    def reference_ns(self) -> list[int]:
        """Samples of f16, in order."""
        return [ns for a1, _, _, a2 in self.rounds for ns in (a1, a2)]

    @property
    def steady(self) -> bool:
        """Whether f16 ran steadily."""
        return rounds.steadiness(self.reference_ns).steady


def take(
    worker: Streams,
    kind: str,
    depth: int,
    before: float | None,
    pair: Pair,
    plan: SpeedPlan,
    setup: SpeedSetup,
) -> RoundSeries:
    """Rounds of one test at the depth that the streams are at, until they decide."""
    begun = time.perf_counter()
    count, floors = plan.count(kind), setup.floors(pair, depth)
    of_cell, of_reference = worker.warm(kind, count, plan.seconds)
    taken: list[Round] = []
    while not _enough(taken, before, floors, kind, plan.rules):
        a1, b1, b2, a2 = worker.samples(kind, count, ABBA)
        taken.append((a1, b1, b2, a2))
    seconds = time.perf_counter() - begun
    return RoundSeries(kind, count, depth, taken, (of_cell, of_reference), seconds, before)


def judge(series: RoundSeries, pair: Pair, plan: SpeedPlan, setup: SpeedSetup) -> SpeedFinding:
    """The gravest thing that a series shows."""
    floors = setup.floors(pair, series.depth)
    log_ratios = series.log_ratios
    against = sides(pair, setup)[1].name
    ratio = rounds.median_ratio(log_ratios)
    text = f"{series.name} runs at {format.factor(ratio)} of the speed of {against}"
    if rounds.is_cliff(log_ratios):
        count = rounds.CLIFF_ROUNDS
        return SpeedFinding(
            "cliff",
            "cliff",
            f"{text}, under half of it in {count} rounds of {count}: off the fast path",
        )
    if series.before is not None:
        limit = series.before * (1 - floors.slowdown)
        if rounds.decide(log_ratios, limit, plan.rules).verdict == "fail":
            return SpeedFinding(
                "slowdown",
                "cliff",
                f"{text}, after {format.factor(series.before)} at the depth before: a slowdown "
                f"by more than {floors.slowdown:.0%}",
            )
    floor = floors.ratio(series.kind)
    decision = rounds.decide(log_ratios, floor, plan.rules)
    text += f" (floor {floor:g})"
    if decision.verdict == "inconclusive":
        text += f", not decided after {decision.rounds} rounds"
    if decision.verdict != "fail":
        absolute = _absolute(series, pair, setup, floors)
        if absolute and (absolute.verdict == "fail" or decision.verdict == "pass"):
            return absolute
    return SpeedFinding("ratio", decision.verdict, text)


def ended_by(kind: str, pair: Pair, depth: int, plan: SpeedPlan, setup: SpeedSetup) -> set[str]:
    """Kinds of test that go no deeper because ``kind`` fell off a cliff at ``depth``.

    A sweep is prefill: where that is off the fast path, deeper depths cost as many times more.
    They are worth it only to whoever has declared the cliff.
    """
    if kind == "pp" and not setup.declared(pair, kind, depth):
        return set(plan.kinds)
    return {kind}


def _enough(
    taken: Sequence[Round], before: float | None, floors: Floors, kind: str, rules: RoundRules
) -> bool:
    log_ratios = [rounds.log_ratio(*times) for times in taken]
    if not taken or rounds.is_cliff(log_ratios) or len(taken) >= rules.most:
        return bool(taken)
    limits = [floors.ratio(kind)]
    if before is not None:
        limits.append(before * (1 - floors.slowdown))
    return all(
        rounds.decide(log_ratios, limit, rules).verdict != "inconclusive" for limit in limits
    )


def _absolute(
    series: RoundSeries, pair: Pair, setup: SpeedSetup, floors: Floors
) -> SpeedFinding | None:
    """What the stored speed of this hardware says against a series, if anything."""
    stored = setup.stored.find(pair, series.kind, series.tokens, series.depth)
    if stored is None:
        return None
    cell = [1e9 * series.tokens / ns for ns in series.cell_ns]
    reference = [1e9 * series.tokens / ns for ns in series.reference_ns]
    floor = floors.stored * stored.cell
    verdict = rounds.judge_absolute(
        cell, reference, floor=floor, stored_reference=stored.reference, steady=series.steady
    )
    if verdict == "pass":
        return None
    text = (
        f"{series.name} reaches {max(cell):.1f} tok/s at best, under {floors.stored:g} of the "
        f"{stored.cell:.1f} tok/s stored for this hardware"
    )
    if verdict == "inconclusive":
        text += (
            f" (machine): f16/f16 reaches {max(reference):.1f} of its stored "
            f"{stored.reference:.1f} tok/s, so it is the machine that is slow or unsteady"
        )
    return SpeedFinding("stored", verdict, text)
