"""The rounds of one test, and what they show."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pytest_kvquant import format
from pytest_kvquant.config.floors import Floors
from pytest_kvquant.config.speed_tests import named
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics import empty_cache, kink, rounds
from pytest_kvquant.numerics.kink import Kink
from pytest_kvquant.results.speed import SpeedVerdict, title
from pytest_kvquant.speed.plan import SpeedPlan
from pytest_kvquant.speed.stored import Stored
from pytest_kvquant.speed.streams import SpeedSetup, sides

COOL_DOWN = (0.5, 30.0)
"""Seconds to wait before an unsteady series is repeated: as long as it took, within these."""

Round = tuple[int, int, int, int]
"""Nanoseconds of A, B, B, A."""


class SpeedFinding(NamedTuple):
    """One thing that a series shows, good or bad."""

    rule: Literal["cliff", "kink", "slowdown", "ratio", "start", "stored", "alone"]
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
    """Wall time, the warm-up included; its share of it where several were timed together."""
    before: float | None = None
    """The ratio at the depth before, if there was one."""
    by_depth: tuple[tuple[float, ...], ...] = ()
    """Depth, and nanoseconds of a token of the cell and of f16 there, on the way up."""
    parts: int = 1
    """That the test was taken in, a sample each, counted up to the whole."""
    disturbed: str = ""
    """Who else used the device meanwhile, in words; empty: nobody, as far as that is known."""
    grows: tuple[float, float] | None = None
    """Nanoseconds by which a token takes longer per token in the cache, of the cell and of f16, as
    a deeper test has shown."""
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
    def kink(self) -> Kink | None:
        """Where the way up shows that another kernel begins."""
        if not self.by_depth:
            return None
        depths, cell, reference = zip(*self.by_depth, strict=True)
        return kink.find([int(depth) for depth in depths], cell, reference)

    @property
    def steady(self) -> bool:
        """Whether f16 ran steadily."""
        return rounds.steadiness(self.reference_ns).steady


def judge(series: RoundSeries, pair: Pair, plan: SpeedPlan, setup: SpeedSetup) -> SpeedFinding:
    """The gravest thing that a series shows; nothing where the device was disturbed."""
    found = _shown(series, pair, plan, setup)
    if not series.disturbed:
        return found
    text = f"{found.text}; {series.disturbed}, so that nothing is decided"
    return found._replace(verdict="inconclusive", text=text)


def _shown(series: RoundSeries, pair: Pair, plan: SpeedPlan, setup: SpeedSetup) -> SpeedFinding:
    floors = setup.floors(pair, series.depth)
    log_ratios = series.log_ratios
    against = sides(pair, setup)[1].name
    ratio = rounds.median_ratio(log_ratios)
    text = f"{series.name} runs at {format.factor(ratio)} of the speed of {against}"
    if rounds.is_cliff(log_ratios, floors.cliff):
        count = rounds.CLIFF_ROUNDS
        part = "half" if floors.cliff == rounds.CLIFF else f"{floors.cliff:g}"
        return SpeedFinding(
            "cliff",
            "cliff",
            f"{text}, under {part} of it in {count} rounds of {count}: off the fast path",
        )
    if (found := series.kink) is not None:
        return SpeedFinding(
            "kink",
            "cliff",
            f"{text}; from about depth {found.depth:,} on a token takes "
            f"{format.factor(found.factor)} times what the depths before let expect, and that of "
            f"{against} does not: another kernel works there",
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
    stored = setup.stored.find(pair, series.kind, series.tokens, series.depth)
    least = kept(stored, floors)
    fell = least is not None and rounds.decide(log_ratios, least, plan.rules).verdict == "fail"
    if stored is not None and fell:
        return SpeedFinding(
            "stored",
            "fail",
            f"{text}, under {floors.kept:g} of the {format.factor(stored.ratio)} stored for this "
            "hardware",
        )
    floor = floors.ratio(series.kind)
    decision = rounds.decide(log_ratios, floor, plan.rules)
    text += f" (floor {floor:g})"
    if decision.verdict == "inconclusive":
        text += f", not decided after {decision.rounds} rounds"
    if decision.verdict != "fail":
        start = _start(series, floors, plan, against)
        other = start or _absolute(series, pair, setup, floors)
        if other and (other.verdict == "fail" or decision.verdict == "pass"):
            return other
    return SpeedFinding("ratio", decision.verdict, text)


def cool_down(disturbed: Sequence[RoundSeries]) -> None:
    """Wait as long as these took, within :data:`COOL_DOWN`."""
    least, most = COOL_DOWN
    time.sleep(min(most, max(least, sum(series.seconds for series in disturbed))))


def ended_by(kind: str, pair: Pair, depth: int, plan: SpeedPlan, setup: SpeedSetup) -> set[str]:
    """Kinds of test that go no deeper because ``kind`` fell off a cliff at ``depth``.

    A sweep is prefill: where that is off the fast path, deeper depths cost as many times more.
    They are worth it only to whoever has declared the cliff.
    """
    if named(kind).ends_all and not setup.declared(pair, kind, depth):
        return set(plan.kinds)
    return {kind}


def kept(stored: Stored | None, floors: Floors) -> float | None:
    """The least ratio that a stored one lets expect; ``None``: none is stored."""
    return None if stored is None else floors.kept * stored.ratio


def _start(
    series: RoundSeries, floors: Floors, plan: SpeedPlan, against: str
) -> SpeedFinding | None:
    """A pair that is slow before there is anything in the cache to read."""
    if series.grows is None or not floors.start:
        return None
    found = empty_cache.log_ratios(series.rounds, series.tokens, series.depth, series.grows)
    if found is None or rounds.decide(found, floors.start, plan.rules).verdict != "fail":
        return None
    return SpeedFinding(
        "start",
        "fail",
        f"{series.name}: with an empty cache it runs at "
        f"{format.factor(rounds.median_ratio(found))} of the speed of {against} (floor "
        f"{floors.start:g}), what grows with the depth taken away: the weights are the same",
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
