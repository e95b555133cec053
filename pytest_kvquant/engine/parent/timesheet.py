"""Where the seconds go: every moment of a run belongs to exactly one part of its work.

This process says what it does, part by part, without gaps. A worker says afterwards what it did
meanwhile (spans on the same clock: ``time.perf_counter_ns`` counts alike in all processes of a
machine). Time in ``llama_decode`` is decoding whatever this process did beside it; of everything
else that a worker tells, only what this process waited for counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

DECODE = "decode"
WAITING = "waiting"
"""For a worker that has not told what it did."""
OTHER = "other"
"""Whatever no part was named for."""

Place = tuple[str, str]
"""Scope and part."""


class Span(NamedTuple):
    """A part of the work, from ``start`` to ``end`` in nanoseconds of ``time.perf_counter_ns``."""

    part: str
    start: int
    end: int


class Segment(NamedTuple):
    """What this process did from ``start`` to ``end``, in nanoseconds."""

    place: Place
    start: int
    end: int


def attribute(own: Sequence[Segment], told: Sequence[Span]) -> dict[Place, int]:
    """Nanoseconds by scope and part; their sum is that of ``own``.

    Args:
        own: ascending, not overlapping.
        told: what a worker did meanwhile, ascending, not overlapping.

    >>> own = [Segment(("cells", "comparison"), 0, 10), Segment(("cells", "waiting"), 10, 30)]
    >>> attribute(own, [Span("decode", 5, 20), Span("transfer", 20, 28)])
    {('cells', 'comparison'): 5, ('cells', 'decode'): 15, ('cells', 'waiting'): 2, \
('cells', 'transfer'): 8}
    """
    found: dict[Place, int] = {}
    first = 0
    for (scope, part), start, end in own:
        found.setdefault((scope, part), 0)
        found[scope, part] += end - start
        while first < len(told) and told[first].end <= start:
            first += 1
        for span in told[first:]:
            if span.start >= end:
                break
            if span.part == DECODE or part == WAITING:
                common = min(end, span.end) - max(start, span.start)
                found[scope, part] -= common
                found[scope, span.part] = found.get((scope, span.part), 0) + common
    return {place: spent for place, spent in found.items() if spent}


class Timesheet:
    """The seconds of a run, by scope (whom they were spent for) and part (on what).

    Args:
        clock: nanoseconds, as workers count them.
    """

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self.watch: Callable[[str], None] = lambda _: None
        """Told what begins: a part, or a scope by its own name."""
        self._places: list[Place] = [("run", OTHER)]
        self._since = self._begun = clock()
        self._pending: list[Segment] = []
        self._spent: dict[Place, int] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The time in this block, but for the parts named within it."""
        with self._at((self._places[-1][0], name)):
            yield

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """The time in this block is spent for ``name``."""
        with self._at((name, OTHER)):
            yield

    def told(self, spans: object) -> None:
        """Take note of what a worker did, as its message says; known up to the last span's end."""
        told = spans if isinstance(spans, list | tuple) else ()
        known = [Span(str(part), int(str(a)), int(str(b))) for part, a, b in told]
        if known:
            self._cut()
            self._settle(known, known[-1].end)

    def enter(self, name: str, part: str, seconds: float) -> None:
        """Time before this timesheet was opened."""
        place = (name, part)
        self._spent[place] = self._spent.get(place, 0) + round(1e9 * seconds)

    def seconds(self) -> dict[Place, float]:
        """All time so far, by scope and part."""
        self._cut()
        self._settle((), self._since)
        return {place: spent / 1e9 for place, spent in self._spent.items()}

    @contextmanager
    def _at(self, place: Place) -> Iterator[None]:
        self._cut()
        self._places.append(place)
        self.watch(place[0] if place[1] == OTHER else place[1])
        try:
            yield
        finally:
            self._cut()
            self._places.pop()

    def _cut(self) -> None:
        now = self._clock()
        self._pending.append(Segment(self._places[-1], self._since, now))
        self._since = now

    def _settle(self, told: Sequence[Span], until: int) -> None:
        early = [
            one._replace(end=min(one.end, until)) for one in self._pending if one.start < until
        ]
        self._pending = [
            one._replace(start=max(one.start, until)) for one in self._pending if one.end > until
        ]
        for place, spent in attribute(early, told).items():
            self._spent[place] = self._spent.get(place, 0) + spent


def since(before: Mapping[Place, float], after: Mapping[Place, float]) -> dict[Place, float]:
    """What was spent between two looks at a timesheet."""
    grown = {place: spent - before.get(place, 0.0) for place, spent in after.items()}
    return {place: spent for place, spent in grown.items() if spent > 0}


def by_part(spent: Mapping[Place, float], scope: str) -> dict[str, float]:
    """What was spent for one scope by part; what others spent meanwhile under their own name."""
    found: dict[str, float] = {}
    for (whose, part), seconds in spent.items():
        name = part if whose == scope else whose
        found[name] = found.get(name, 0.0) + seconds
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def summed(spent: Mapping[Place, float], *, by: int) -> dict[str, float]:
    """Seconds by scope (0) or by part (1), most first."""
    found: dict[str, float] = {}
    for place, seconds in spent.items():
        found[place[by]] = found.get(place[by], 0.0) + seconds
    return dict(sorted(found.items(), key=lambda one: -one[1]))
