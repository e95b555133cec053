"""One sweep through the depths, of one pair or of several that share f16, and what it finds.

All contexts live in one process, f16's made last, and take turns: A B C C B A. One sweep per
process visits the depths in ascending order. Where two caches do not fit into memory, f16, cell
and f16 follow each other in a process each; where f16 does not fit at all, the cell is timed
alone; and the record says so. A fail is confirmed in a fresh process; a cliff (under half the
speed in each of three rounds) is not: the three rounds are its confirmation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from pytest_kvquant.errors import CellError, CellOutOfMemory
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.speed import SpeedTest
from pytest_kvquant.speed import in_turn
from pytest_kvquant.speed.bracket import Tests, judge_bracketed, take_alone, take_bracketed
from pytest_kvquant.speed.looking_back import first_with_growth
from pytest_kvquant.speed.methods import METHODS, Method, Way, find_ways
from pytest_kvquant.speed.plan import SpeedPlan, listed
from pytest_kvquant.speed.record import record
from pytest_kvquant.speed.series import RoundSeries, SpeedFinding, cool_down, ended_by, judge
from pytest_kvquant.speed.streams import Account, SpeedSetup, sides, streams

Place = tuple[str, int]
"""Kind of test, depth."""


SAME_KINK = 1024
"""Tokens between two sightings of a kernel that begins at a depth: the width of a window."""


class DepthSweep:
    """What has been found of a pair so far, and what is left to time."""

    def __init__(self, pair: Pair, plan: SpeedPlan, setup: SpeedSetup) -> None:
        self.pair, self._plan, self._setup = pair, plan, setup
        self.account = Account()
        self.method: Method = "interleaved"
        self.reasons: list[str] = []
        """Why depths were not timed in turn with f16."""
        self._found: dict[Place, tuple[RoundSeries, SpeedFinding]] = {}
        self._methods: dict[Place, Method] = {}
        self._again: dict[Place, SpeedFinding] = {}
        self._ended_at: dict[str, int] = {}
        """Where a kind of test fell off a cliff."""
        self._ended: set[str] = set()
        """Kinds that go no deeper."""
        self._left: tuple[int, ...] = ()
        self._left_reason = ""
        self.failed: tuple[CellError, str] | None = None
        """What killed a worker first, and the same in words, with the place."""

    def attempt(self, step: Callable[[], None]) -> None:
        """Go as far as it goes."""
        self.account.activity = ""
        try:
            step()
        except CellError as error:
            place = self.account.activity
            message = f"{error} That was while {place}." if place else str(error)
            self.failed = self.failed or (error, message)

    def visit(self) -> None:
        """Time all depths, each as well as memory allows."""
        ways = find_ways(self.pair, self._plan, self._setup)
        self._left, self._left_reason = ways.left, ways.reason
        for way in ways.visited:
            self._go(way)
        self.look_back()

    def look_back(self) -> None:
        """Judge the first depth by what a deeper one has shown of it."""
        for series in first_with_growth(self._found.values(), self._methods.values()):
            self.enter(series, judge(series, self.pair, self._plan, self._setup), "interleaved")

    def confirm(self) -> None:
        """Ask a fresh process about every fail that is not certain yet."""
        doubtful = [place for place in self._found if self._doubtful(place)]
        for method, places in groupby(doubtful, self._methods.__getitem__):
            same = [self._found[place][0] for place in places]
            if method == "bracketed":
                self._repeat_bracketed(same)
            else:
                self._repeat(same)

    def tests(self) -> tuple[SpeedTest, ...]:
        """All that was found, for the record."""
        return tuple(
            record(
                series,
                *_confirmed(finding, self._again.get(place)),
                self.pair,
                self._setup,
                self.account,
            )
            for place, (series, finding) in self._found.items()
        )

    @property
    def complete(self) -> bool:
        """Whether every depth could be visited."""
        return not self._left

    def stopped(self) -> Iterator[str]:
        """Why tests are missing, in sentences."""
        ended_all = self._ended == {*self._plan.kinds}
        for kind, depth in self._ended_at.items():
            deeper = listed(one for one in self._plan.depths if one > depth)
            last = depth == max(self._ended_at.values())
            if deeper and ended_all and last:
                yield (f"a cliff at depth {depth:,} ended the sweep; not visited: {deeper}")
                return
            if deeper:
                yield (f"{kind} fell off a cliff at depth {depth:,} and was not timed at: {deeper}")
        if self._left:
            yield f"not visited: {listed(self._left)}: {self._left_reason}"

    def _go(self, way: Way) -> None:
        """Time depths; where memory turns out smaller than expected, by what needs less."""
        method, reason = way.method, way.reason
        while tests := self.open(way.depths):
            self.method = method
            if reason:
                how = "f16 before and after, not in turn" if method == "bracketed" else "no f16"
                self.reasons.append(f"from depth {min(tests):,} on {how}: {reason}")
            try:
                self._visitors[method](tests, reason)
                return
            except CellOutOfMemory as error:
                if method == METHODS[-1]:
                    raise
                method, reason = METHODS[METHODS.index(method) + 1], str(error)

    @property
    def _visitors(self) -> dict[Method, Callable[[Tests, str], None]]:
        return {
            "interleaved": self._in_turn,
            "bracketed": self._bracketed,
            "alone": self._alone,
        }

    def open(self, depths: Sequence[int]) -> dict[int, list[str]]:
        """Tests that are left at these depths."""
        kinds = {
            depth: [
                kind
                for kind in self._plan.kinds
                if kind not in self._ended and (kind, depth) not in self._found
            ]
            for depth in depths
        }
        return {depth: left for depth, left in kinds.items() if left}

    def _in_turn(self, tests: Tests, _: str) -> None:
        in_turn.sweep([self], tuple(tests), self._plan, self._setup)

    def _bracketed(self, tests: Tests, _: str) -> None:
        pair, plan, setup = self.pair, self._plan, self._setup
        for series in take_bracketed(tests, pair, plan, setup, self.account):
            following = series._replace(before=self.before(series.kind, series.depth))
            self.enter(following, judge_bracketed(following, pair, plan, setup), "bracketed")
        for depth in tests:
            self.close(depth)

    def _alone(self, tests: Tests, reason: str) -> None:
        found = take_alone(tests, reason, self.pair, self._plan, self._setup, self.account)
        for series, finding in found:
            self.enter(series, finding, "alone")

    def enter(self, series: RoundSeries, finding: SpeedFinding, method: Method) -> None:
        """Keep what was found."""
        place = series.kind, series.depth
        self._found[place] = series, finding
        self._methods[place] = method

    def close(self, depth: int) -> None:
        """What fell off a cliff at this depth goes no deeper."""
        for kind in self._plan.kinds:
            if (entry := self._found.get((kind, depth))) and entry[1].rule == "cliff":
                self._ended_at[kind] = depth
                self._ended |= ended_by(kind, self.pair, depth, self._plan, self._setup)

    def before(self, kind: str, depth: int) -> float | None:
        """The ratio at the last depth before this one at which it is known."""
        ratios = [
            series.ratio
            for place, (series, _) in self._found.items()
            if place[0] == kind and place[1] < depth and self._known(place)
        ]
        return ratios[-1] if ratios else None

    def _known(self, place: Place) -> bool:
        """Whether f16 was timed, and not while the machine drifted from one process to the next."""
        method, (series, _) = self._methods[place], self._found[place]
        return method == "interleaved" or (method == "bracketed" and series.steady)

    def _doubtful(self, place: Place) -> bool:
        """Whether a fresh process is asked before this is believed."""
        series, finding = self._found[place]
        if finding.rule == "cliff" or finding.verdict not in ("fail", "cliff"):
            return False
        return self._plan.confirm or finding.rule == "stored" or not series.steady

    def _repeat(self, doubtful: Sequence[RoundSeries]) -> None:
        """The same tests in one fresh process, and what they show there."""
        pair, plan, setup, account = self.pair, self._plan, self._setup, self.account
        if not all(series.steady for series in doubtful):
            cool_down(doubtful)
        context = plan.context(max(series.depth for series in doubtful))
        with streams(sides(pair, setup), context, setup, (account,)) as worker:
            for series in doubtful:
                account.activity = f"timing {series.name} again"
                worker.extend_to(series.depth, (0, 1))
                asked = in_turn.TimedCell(0, pair, series.before)
                (again,) = in_turn.take(worker, series.kind, series.depth, [asked], 1, plan, setup)
                again = _at_the_same_depth(again._replace(grows=series.grows), series)
                self._again[series.kind, series.depth] = judge(again, pair, plan, setup)

    def _repeat_bracketed(self, doubtful: Sequence[RoundSeries]) -> None:
        """The same tests in three fresh processes."""
        pair, plan, setup = self.pair, self._plan, self._setup
        first = {(series.kind, series.depth): series for series in doubtful}
        tests: dict[int, list[str]] = {}
        for kind, depth in first:
            tests.setdefault(depth, []).append(kind)
        for series in take_bracketed(tests, pair, plan, setup, self.account):
            place = series.kind, series.depth
            again = series._replace(before=first[place].before)
            self._again[place] = judge_bracketed(again, pair, plan, setup)


def _at_the_same_depth(again: RoundSeries, first: RoundSeries) -> RoundSeries:
    """Without a way up that shows another kernel elsewhere than the first one did."""
    one, other = first.kink, again.kink
    if one and other and abs(one.depth - other.depth) <= SAME_KINK:
        return again
    return again._replace(by_depth=())


def _confirmed(
    finding: SpeedFinding, again: SpeedFinding | None
) -> tuple[SpeedFinding, bool | None]:
    if again is None:
        return finding, None
    if again.verdict in ("fail", "cliff"):
        return finding, True
    return finding._replace(
        verdict="inconclusive", text=f"{finding.text}; a fresh process did not find the same"
    ), False
