"""Speed verdicts as test outcomes, and their samples into pytest-benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

import pytest

from pytest_kvquant import format
from pytest_kvquant.config.speed_tests import NAMES, SPEED_TESTS, DeclaredSpeedTest
from pytest_kvquant.report.links import link
from pytest_kvquant.report.repeat import command as repeat_command
from pytest_kvquant.results.speed import SpeedCell, SpeedTest

if TYPE_CHECKING:
    from pytest_kvquant.matrix import Pair
    from pytest_kvquant.session.run import Session


def speed_tests() -> dict[str, Callable[..., None]]:
    """The tests of the suite, made from the declarations."""
    return {one.test: _test(one) for one in SPEED_TESTS}


def _test(one: DeclaredSpeedTest) -> Callable[..., None]:
    def test(kv_speed: CellSpeed, kv_depth: int, benchmark: Benchmark) -> None:
        kv_speed.check(one.name, kv_depth, benchmark)

    test.__name__ = test.__qualname__ = one.test
    test.__doc__ = one.document
    return test


class Replay:
    """A clock that stands still but for :meth:`step`, which takes as long as a measured sample.

    With it as pytest-benchmark's timer, ``pedantic(clock.step, rounds=n)`` records n samples that
    were measured elsewhere, in turn with those of f16, which pytest-benchmark cannot do itself.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._left: list[float] = []

    def load(self, seconds: Sequence[float]) -> None:
        """Samples to replay, in order."""
        self._left = list(reversed(seconds))

    def __call__(self) -> float:
        """The time."""
        return self._now

    def step(self) -> None:
        """Let one sample's time pass."""
        if self._left:
            self._now += self._left.pop()


class Benchmark(Protocol):
    """What is used of pytest-benchmark's fixture, which has no types."""

    group: str | None
    extra_info: dict[str, object]
    disabled: bool

    def pedantic(self, target: Callable[[], object], *, rounds: int) -> object:
        """Call and time it so often."""


class CellSpeed:
    """The speed of one pair, as a test sees it.

    Args:
        alone: whether this process has a device for itself although others work beside it: then
            pairs are timed where pytest-benchmark, which cannot know, is disabled by pytest-xdist.
    """

    def __init__(self, session: Session, pair: Pair, clock: Replay, *, alone: bool = False) -> None:
        self._session, self._pair, self._clock, self._alone = session, pair, clock, alone

    @property
    def cell(self) -> SpeedCell:
        """The whole record of the pair's speed."""
        return self._session.speed.measure(self._pair)

    def check(self, kind: str, depth: int, benchmark: Benchmark | None) -> None:
        """Pass, fail or skip by the verdict of one test; its samples go to pytest-benchmark.

        Args:
            kind: the name of a speed test.
            depth: one of those of the run.
            benchmark: the fixture of that name; ``None`` without pytest-benchmark.

        Raises:
            ValueError: another kind, or a depth that the run does not visit.
        """
        __tracebackhide__ = True
        self._require_planned(kind, depth)
        if not self._alone and (reason := _switched_off(benchmark)):
            self._nothing_measured(reason, is_open=True)
        if not self._session.speed.plan.count(kind):
            self._nothing_measured(f"--kv-{kind} is 0", is_open=False)
        test = self._find(kind, depth)
        if benchmark is not None:
            self._replay(test, benchmark)
        self._conclude(test)

    def _require_planned(self, kind: str, depth: int) -> None:
        if kind not in NAMES:
            raise ValueError(f"'{kind}' is no speed test: it is one of {', '.join(NAMES)}.")
        depths = self._session.speed.plan.depths
        if depth not in depths:
            visited = ", ".join(map(str, depths))
            raise ValueError(f"Depth {depth} is not visited by --kv-depths: {visited}.")

    def _nothing_measured(self, reason: str, *, is_open: bool) -> NoReturn:
        """Skip, and say so in the result; with ``--kv-strict`` an open verdict fails."""
        __tracebackhide__ = True
        self._session.account.nothing_measured(reason, is_open=is_open)
        text = f"nothing was measured: {reason}"
        if is_open and self._session.settings.strict:
            pytest.fail(f"{self._pair}: {text}", pytrace=False)
        pytest.skip(text)

    def _require_alive(self) -> None:
        __tracebackhide__ = True
        run, cell = self._session.speed, self.cell
        if cell.message is None:
            return
        quality = self._session.measure(self._pair)
        if quality.excused and cell.verdict == quality.verdict:
            pytest.skip(f"{self._pair}: {cell.verdict}. {cell.message}")
        if self._pair in run.announced or self._pair in self._session.account.announced:
            pytest.skip(f"{self._pair} was not timed: {cell.verdict}")
        run.announced.add(self._pair)
        log = f"\n\nThe end of the library's log:\n{cell.log}" if cell.log else ""
        pytest.fail(
            f"{self._pair}: {cell.verdict}. {cell.message}{log}\n\n{self._conditions()}",
            pytrace=False,
        )

    def _find(self, kind: str, depth: int) -> SpeedTest:
        __tracebackhide__ = True
        for test in self.cell.tests:
            if (test.kind, test.n_depth) == (kind, depth):
                return test
        self._require_alive()
        text = f"nothing was measured: {self.cell.stopped}"
        if self._session.settings.strict and all(one.verdict != "cliff" for one in self.cell.tests):
            pytest.fail(f"{self._pair}: {text}", pytrace=False)
        pytest.skip(text)

    def _replay(self, test: SpeedTest, benchmark: Benchmark) -> None:
        self._clock.load([ns / 1e9 for ns in test.samples_ns])
        benchmark.group = test.title
        benchmark.extra_info |= {
            "tok_s": test.median_ts,
            "depth": test.n_depth,
            "ratio": test.ratio,
            "floor": test.floor,
            "verdict": test.verdict,
            "pair": str(self._pair),
            "test": test.title,
        }
        benchmark.pedantic(self._clock.step, rounds=len(test.samples_ns))

    def _conclude(self, test: SpeedTest) -> None:
        __tracebackhide__ = True
        text = f"{self._pair}: {test.text}"
        if test.declared:
            pytest.xfail(f"{text} (declared in [expect])")
        if test.kind in self.cell.gone and self._is_deepest(test):
            gone = self.cell.gone_text(test.kind)
            pytest.fail(f"{self._pair}: {gone}\n{self._conditions()}", pytrace=False)
        if test.verdict == "pass":
            return
        if test.verdict == "inconclusive" and not self._session.settings.strict:
            pytest.skip(text)
        pytest.fail(f"{text}\n{_figures(test)}\n{self._conditions(test.title)}", pytrace=False)

    def _is_deepest(self, test: SpeedTest) -> bool:
        """Whether no test of its kind is deeper: it is the one that tells of all of them."""
        return test == [one for one in self.cell.tests if one.kind == test.kind][-1]

    def _conditions(self, test: str = "") -> str:
        session = self._session
        report = session.settings.report
        page = f"\n  page      {link(str(report), str(self._pair), test)}" if report else ""
        again = repeat_command(session.account.invocation, self._pair, "-k", "speed")
        return (
            f"  measured  {session.model.name}, {session.library.build}, "
            f"{session.speed.hardware.name}, "
            f"{format.several(session.task.shape.threads, 'thread')}\n"
            f"  again     {again}{page}"
        )


def _figures(test: SpeedTest) -> str:
    ratios = ", ".join(format.factor(ratio) for ratio in test.ratios[:12])
    more = f" … ({len(test.ratios)} in all)" if len(test.ratios) > 12 else ""
    again = {True: "; a fresh process found the same", False: "", None: ""}[test.confirmed]
    ratio = f", ratio {format.factor(test.ratio)}" if test.ratio is not None else ""
    return (
        f"  obtained  {format.speed(test.median_ts)} tok/s{ratio}\n"
        f"  expected  a ratio of at least {test.floor:g}\n"
        f"  rounds    {ratios}{more}\n"
        f"  evidence  E = {test.e_below:.3g} that it is under the floor{again}"
    )


def _switched_off(benchmark: Benchmark | None) -> str:
    """Why pytest-benchmark takes no samples; empty if it does."""
    if benchmark is None:
        return "pytest-benchmark is not loaded, and speed tests report through it"
    if not benchmark.disabled:
        return ""
    return "pytest-benchmark is disabled, and speed tests report through it"
