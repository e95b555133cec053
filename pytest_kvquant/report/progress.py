"""Progress while a run works: one line rewritten on a terminal, plain lines elsewhere.

Where lines cannot be rewritten (no terminal, a dumb one, ``-q``, CI) a line is printed when a pair
is finished, with its time, and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pytest_kvquant import format
from pytest_kvquant.machine.escape import one_line
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.eta import CALM, TELLS, Kind, known_calm, left

if TYPE_CHECKING:
    from _pytest.capture import CaptureManager

WORDS = {
    "reference": "f16 reference",
    "control": "f16 against itself",
    "first": "quality",
    "cell": "quality",
    "speed": "speed",
    "ceiling": "largest context",
}
"""Phases as a person reads them."""

SETTLE_SECONDS = 2.0
"""Before this much has been done, nothing is said of what is left."""


TELLING = ("first", "speed")
"""Kinds of which one has to be done, or to tell how far it is, before a forecast is worth anything,
where no earlier run told what they take: a guess knows neither the model nor the machine."""


class _Phase(NamedTuple):
    name: str
    pair: Pair | None
    begun: float
    inner: float
    """Seconds that phases within it have taken so far."""
    units: float
    """Of its kind, that it is planned to do."""


class Clock:
    """What has been done of a plan, and what is left: a stack of phases and a forecast.

    Args:
        now: the time, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.begun = now()
        self._kinds: dict[str, Kind] = {}
        self._trusted, self._calm = False, CALM
        self._stack: list[_Phase] = []
        self._share = 0.0
        self._first: tuple[float, float] | None = None
        """When the innermost phase first said how far it is, and how far it was."""

    def plan(self, kinds: Mapping[str, Kind], *, trusted: bool = True) -> None:
        """What is to be done.

        Args:
            trusted: whether the guesses can be told before a unit of each telling kind is done.
        """
        self._kinds, self._trusted = dict(kinds), trusted
        self._calm = known_calm(self._kinds.values()) if trusted else CALM

    def begin(self, name: str, pair: Pair | None, units: float = 1.0) -> None:
        """A phase begins: so many units of its kind."""
        self._stack.append(_Phase(name, pair, self._now(), 0.0, units))
        self._share, self._first = 0.0, None

    def share(self, share: float) -> None:
        """How far the innermost phase is, 0 to 1.

        What it took before it first said so (a process was started) is not taken for its pace.
        """
        self._share = share
        if self._first is None:
            self._first = self._now(), share

    def end(self, units: float) -> float:
        """The innermost phase has ended; its own seconds."""
        last = self._stack.pop()
        took = self._now() - last.begun
        if self._stack:
            outer = self._stack[-1]
            self._stack[-1] = outer._replace(inner=outer.inner + took)
        own = max(took - last.inner, 0.0)
        self._share, self._first = 0.0, None
        if (kind := self._kinds.get(last.name)) is not None:
            done = kind.done + units
            self._kinds[last.name] = kind._replace(
                done=done, spent=kind.spent + own, planned=max(kind.planned, done)
            )
        return own

    def drop(self, name: str) -> None:
        """What was planned of a kind and not done will not be done."""
        if (kind := self._kinds.get(name)) is not None:
            self._kinds[name] = kind._replace(planned=kind.done)

    @property
    def innermost(self) -> tuple[str, Pair | None] | None:
        """The phase in work."""
        return self._stack[-1][:2] if self._stack else None

    def rates(self) -> dict[str, float]:
        """Seconds a unit, of the kinds of which one was done."""
        return {name: kind.spent / kind.done for name, kind in self._kinds.items() if kind.done > 0}

    @property
    def passed(self) -> float:
        """Seconds since the run began."""
        return self._now() - self.begun

    def left(self) -> float | None:
        """Seconds until the plan is done; ``None`` while nobody knows."""
        kinds = dict(self._kinds)
        if not kinds or not (self._stack or any(kind.done for kind in kinds.values())):
            return None
        inner = 0.0
        for at, one in enumerate(reversed(self._stack)):
            if (kind := kinds.get(one.name)) is not None:
                own = self._now() - one.begun - one.inner - inner
                own = max(own, 1e-9)
                share = self._paced(own) if at == 0 else 0.0
                kinds[one.name] = kind._replace(begun=own, share=share, size=one.units)
            inner = self._now() - one.begun
        telling = [kinds[name] for name in TELLING if name in kinds and kinds[name].planned]
        if not self._trusted and any(not kind.done and kind.share < TELLS for kind in telling):
            return None
        return left(kinds.values(), self._calm)

    def _paced(self, own: float) -> float:
        """The share of its seconds that the innermost phase has taken, as far as it says."""
        if self._first is None:
            return 0.0
        since, first = self._first
        moved = self._share - first
        if moved < TELLS:
            return 0.0
        rest = (self._now() - since) / moved * (1 - self._share)
        return own / (own + rest)


class Progress:
    """Tells a person how the run goes on, through pytest's own terminal writer."""

    def __init__(self, config: pytest.Config) -> None:
        plugins = config.pluginmanager
        self._capture: CaptureManager | None = plugins.getplugin("capturemanager")
        self._terminal: pytest.TerminalReporter | None = plugins.getplugin("terminalreporter")
        self._live = _rewrites(self._terminal, config)
        self._clock = Clock()
        self._cells = 0
        self._numbers: dict[Pair, int] = {}
        self._shown = False

    def note(self, line: str) -> None:
        """Something that a person should read."""
        self._line(f"kvquant: {one_line(line)}")

    def plan(self, kinds: Mapping[str, Kind], cells: int, *, trusted: bool = False) -> None:
        """What is to be done: units by phase, with guesses of their seconds.

        Args:
            trusted: whether the guesses are what an earlier run under the same conditions took.
        """
        self._clock.plan(kinds, trusted=trusted)
        self._cells = cells

    def begin(self, phase: str, pair: Pair | None = None, units: float = 1.0) -> None:
        """A phase begins."""
        self._clock.begin(phase, pair, units)
        if pair is not None and phase != "control":
            self._numbers.setdefault(pair, len(self._numbers) + 1)
        self._status("")

    def step(self, what: str, done: int, of: int) -> None:
        """How far the phase is."""
        self._clock.share(done / of if of else 0.0)
        self._status(f", {what}" if what else "")

    def end(self, units: float = 1.0) -> None:
        """The innermost phase has ended."""
        self._clock.end(units)

    def cell(self, pair: Pair, words: str, seconds: float) -> None:
        """A pair is finished: a line of it that stays."""
        number = f"{self._numbers.get(pair, 0)}/{self._cells}"
        text = f"kvquant: {number} {pair}  {words}  {format.seconds(seconds)}{self._left()}"
        if self._live and self._terminal is not None:
            text = folded(text, self._terminal._tw.fullwidth)
        self._line(text)

    def rates(self) -> Mapping[str, float]:
        """Seconds that a unit of each phase took, of which one was done."""
        return self._clock.rates()

    def forecast(self) -> tuple[float, float | None]:
        """Seconds passed, and seconds left as far as anything is known."""
        return self._clock.passed, self._clock.left()

    def _left(self) -> str:
        passed, rest = self.forecast()
        if rest is None or passed < SETTLE_SECONDS or rest < 1:
            return ""
        return f", about {format.seconds(rest)} left"

    def _status(self, more: str) -> None:
        phase = self._clock.innermost
        if not self._live or phase is None or self._terminal is None:
            return
        name, pair = phase
        where = f"{self._numbers.get(pair, 1)}/{self._cells} {pair}: " if pair is not None else ""
        text = f"kvquant: {where}{WORDS.get(name, name)}{more}"
        width = self._terminal._tw.fullwidth
        with self._uncaptured():
            self._terminal.rewrite(within(text, self._left(), width - 1), erase=True)
            self._shown = True

    def _line(self, text: str) -> None:
        with self._uncaptured():
            if self._terminal is None:
                return
            if self._shown:
                self._terminal.rewrite("", erase=True)
                self._terminal.rewrite("")
                self._shown = False
            elif self._terminal._tw.width_of_current_line:
                self._terminal._tw.line()
                self._terminal.currentfspath = None
            self._terminal.write_line(text)
            self._terminal.flush()  # whoever follows a log sees it now, not a few kilobytes later

    @contextmanager
    def _uncaptured(self) -> Iterator[None]:
        if self._capture is None:
            yield
        else:
            with self._capture.global_and_fixture_disabled():
                yield


def within(text: str, left: str, width: int) -> str:
    """One line of at most that width: what is in work is cut before what is left.

    >>> within("kvquant: 2/3 q8_0/q8_0: quality, decode path, greedy text", ", 3 min left", 50)
    'kvquant: 2/3 q8_0/q8_0: quality, de..., 3 min left'
    """
    room = max(width - len(left), 0)
    if len(text) > room:
        text = f"{text[: max(room - 3, 0)]}..."
    return f"{text}{left}"[:width]


def folded(text: str, width: int) -> str:
    """A line that stays, on a terminal: between its parts, which two blanks stand apart.

    >>> print(folded("kvquant: 2/3 q8_0/q8_0  pass  KL 0.004  46 s, about 3 min left", 40))
    kvquant: 2/3 q8_0/q8_0  pass  KL 0.004
             46 s, about 3 min left
    """
    lines = [""]
    for part in text.split("  "):
        longer = f"{lines[-1]}  {part}" if lines[-1] else part
        if lines[-1] and len(longer) > width:
            lines.append(" " * len("kvquant: ") + part)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _rewrites(terminal: pytest.TerminalReporter | None, config: pytest.Config) -> bool:
    """Whether a line may be rewritten: on a terminal that can, where a person watches."""
    if terminal is None or not terminal.isatty or config.getoption("verbose") < 0:
        return False
    return os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
