"""The finished parts of a run, typed: kept in the journal as they come, taken from it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell, NoiseFloor
from pytest_kvquant.results.completeness import ReferenceUse, Sitting, used_together
from pytest_kvquant.results.speed import SpeedCell
from pytest_kvquant.session.journal import Journal

T = TypeVar("T", SpeedCell, Ceiling)

UNFINISHED = ("timeout", "out-of-memory", "no-reference", "error", "crashed", "server-lost")
"""Verdicts of the moment: a cell that has one is tried again."""


class MeasuredCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell's quality, with what it was measured against."""

    cell: Cell
    floor: NoiseFloor | None


class Finished:
    """What this run and earlier sittings of it have finished.

    Args:
        key: what a part depends on that is not the same for all of the run: cells among which
            chance is corrected for, threads, device.
        started: of this sitting, UTC, ISO 8601.
    """

    def __init__(self, journal: Journal | None, key: Mapping[str, object], started: str) -> None:
        self._journal, self._key, self._started = journal, key, started
        self._own: dict[str, list[str]] = {"cell": [], "speed": [], "ceiling": []}

    def cell(
        self, pair: Pair, measure: Callable[[], MeasuredCell], *, usable: Callable[[Cell], bool]
    ) -> MeasuredCell:
        """The quality of a pair: taken over, or measured and kept.

        Args:
            usable: whether all that was asked for of an earlier sitting's cell is there.
        """
        if self._journal is not None:
            found = self._journal.find("cell", str(pair), self._key, MeasuredCell)
            if found is not None and usable(found.cell):
                return found
            self._journal.disown("cell", str(pair))
        measured = measure()
        self._own["cell"].append(str(pair))
        if self._journal is not None and measured.cell.verdict not in UNFINISHED:
            self._journal.keep("cell", str(pair), self._key, measured)
        return measured

    def earlier_speed(self, pair: Pair, key: Mapping[str, object]) -> SpeedCell | None:
        """The speed of a pair that an earlier sitting timed, taken over as a whole."""
        return self._earlier("speed", pair, key, SpeedCell)

    def keep_speed(self, pair: Pair, key: Mapping[str, object], made: SpeedCell) -> None:
        """Keep the speed of a pair that this sitting timed."""
        self._keep("speed", pair, key, made)

    def ceiling(
        self, pair: Pair, key: Mapping[str, object], search: Callable[[], Ceiling]
    ) -> Ceiling:
        """The largest context of a pair."""
        found = self._earlier("ceiling", pair, key, Ceiling)
        if found is None:
            found = search()
            self._keep("ceiling", pair, key, found)
        return found

    def _earlier(self, kind: str, pair: Pair, key: Mapping[str, object], of: type[T]) -> T | None:
        if self._journal is None:
            return None
        return self._journal.find(kind, str(pair), {**self._key, **key}, of)

    def _keep(
        self, kind: str, pair: Pair, key: Mapping[str, object], made: SpeedCell | Ceiling
    ) -> None:
        self._own[kind].append(str(pair))
        if self._journal is not None and getattr(made, "message", None) is None:
            self._journal.keep(kind, str(pair), {**self._key, **key}, made)

    def reference(self, now: ReferenceUse) -> ReferenceUse:
        """What all sittings did for the reference; that of this one is kept for the next."""
        if self._journal is None:
            return now
        before = [
            found
            for sitting in self._journal.sittings()
            if (found := self._journal.find("reference", sitting, {}, ReferenceUse)) is not None
        ]
        return used_together([*before, now])

    def keep_reference(self, now: ReferenceUse) -> None:
        """Keep what this sitting did for the reference so far."""
        if self._journal is not None:
            self._journal.keep("reference", self._started, {}, now)

    def sittings(self) -> tuple[Sitting, ...]:
        """In which sitting each part was measured, the earliest first."""
        found: dict[str, dict[str, list[str]]] = {}
        taken = self._journal.taken.items() if self._journal is not None else ()
        for (kind, name), sitting in taken:
            if kind in self._own:
                found.setdefault(sitting, {}).setdefault(kind, []).append(name)
        if any(self._own.values()) or not found:
            found[self._started] = self._own
        return tuple(
            Sitting(
                started=started,
                cells=tuple(parts.get("cell", ())),
                speeds=tuple(parts.get("speed", ())),
                ceilings=tuple(parts.get("ceiling", ())),
            )
            for started, parts in sorted(found.items())
        )

    def end(self, *, whole: bool) -> None:
        """Drop the journal of a run that is whole; keep that of any other for the next."""
        if self._journal is None:
            return
        if whole:
            self._journal.finish()
        else:
            self._journal.close()
