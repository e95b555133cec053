"""Who is told how a run goes on, and how long its parts are expected to take."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.eta import Kind


class Observer(Protocol):
    """Who is told how a run goes on. Phases nest; the time of an inner one is not the outer's."""

    def note(self, line: str) -> None:
        """Something that a person should read."""

    def plan(self, kinds: Mapping[str, Kind], cells: int, *, trusted: bool) -> None:
        """What is to be done: units by phase, with guesses of their seconds.

        Args:
            trusted: whether the guesses are what an earlier run under the same conditions took.
        """

    def rates(self) -> Mapping[str, float]:
        """Seconds that a unit of each phase took, of which one was done."""

    def begin(self, phase: str, pair: Pair | None = None, units: float = 1.0) -> None:
        """A phase begins: one of those of the plan, and so many of its units."""

    def step(self, what: str, done: int, of: int) -> None:
        """How far the phase is; ``of`` 0 where nobody knows."""

    def cell(self, pair: Pair, words: str, seconds: float) -> None:
        """A pair is finished: its verdict and figures in a few words, and what it took."""

    def end(self, units: float = 1.0) -> None:
        """The innermost phase has ended: so many units of it are done."""


class Listener:
    """An observer that keeps what a person should read; all else goes unsaid."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        """Kept."""
        self.notes.append(line)

    def plan(self, kinds: Mapping[str, Kind], cells: int, *, trusted: bool) -> None:
        """Not told."""

    def rates(self) -> Mapping[str, float]:
        """Not kept."""
        return {}

    def begin(self, phase: str, pair: Pair | None = None, units: float = 1.0) -> None:
        """Not told."""

    def step(self, what: str, done: int, of: int) -> None:
        """Not told."""

    def cell(self, pair: Pair, words: str, seconds: float) -> None:
        """Not told."""

    def end(self, units: float = 1.0) -> None:
        """Not told."""


class Announcer(Listener):
    """Says on standard error what a person should read, and each pair when it is finished.

    Args:
        name: of the command, before each line.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def note(self, line: str) -> None:
        """Said."""
        print(f"{self._name}: {line}", file=sys.stderr)

    def cell(self, pair: Pair, words: str, seconds: float) -> None:
        """Said, with its time."""
        self.note(f"{pair} {words} ({seconds:.0f} s)")


@contextmanager
def phase(
    observer: Observer, name: str, pair: Pair | None = None, units: float = 1.0
) -> Iterator[None]:
    """A phase from its beginning to its end, however it ends; so many units are done then."""
    observer.begin(name, pair, units)
    try:
        yield
    finally:
        observer.end(units)
