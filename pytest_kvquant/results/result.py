"""The one result model: what a run measured, under which conditions, with which verdicts.

``--kv-json`` writes it as it is; the terminal draws it. ``schema`` names the version of its shape.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pytest_kvquant.machine.hardware import Hardware
from pytest_kvquant.results.advice import Advice
from pytest_kvquant.results.baseline import BaselinesRecord
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell, NoiseFloor
from pytest_kvquant.results.completeness import Selection, Sitting
from pytest_kvquant.results.conditions import (
    CorpusRecord,
    EnvironmentRecord,
    ModelRecord,
    ReferenceRecord,
    SettingsRecord,
)
from pytest_kvquant.results.speed import SpeedCell
from pytest_kvquant.results.zoo import ZooCell

SCHEMA = "pytest-kvquant/2"


class Unmeasured(msgspec.Struct, frozen=True, kw_only=True):
    """Tests that measured nothing, for one reason."""

    reason: str
    """Why, in words."""
    tests: int
    """How many tests."""
    open: bool
    """Whether that leaves a verdict open, which fails with ``--kv-strict``; otherwise it is what
    was asked for."""

    @property
    def text(self) -> str:
        """One line."""
        tests = "1 speed test" if self.tests == 1 else f"{self.tests} speed tests"
        return f"nothing was measured by {tests}: {self.reason}"


def counted(parts: Iterable[Unmeasured]) -> tuple[Unmeasured, ...]:
    """One entry per reason, with the tests of all of them counted together."""
    found: dict[tuple[str, bool], int] = {}
    for one in parts:
        found[one.reason, one.open] = found.get((one.reason, one.open), 0) + one.tests
    return tuple(
        Unmeasured(reason=reason, tests=tests, open=is_open)
        for (reason, is_open), tests in found.items()
    )


class RunTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Where the seconds of a run went."""

    wall: float
    """All of them, from the start of the process to this record; of merged results, their sum."""
    parts: dict[str, float]
    """By what they were spent on, most first; they sum to ``wall``."""
    scopes: dict[str, float]
    """By whom they were spent for, most first; they sum to ``wall``."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    environment: EnvironmentRecord
    """The machine, the library and the variables that the workers saw."""
    model: ModelRecord
    """The model that was measured with."""
    corpus: CorpusRecord
    """The text, and the chunks drawn from it."""
    texts: tuple[CorpusRecord, ...] = ()
    """Further texts that cells were measured on, and the run's own disturbed ones."""
    settings: SettingsRecord
    """How tokens were cut, batched and judged."""
    reference: ReferenceRecord
    """What the run did for its reference."""
    floor: NoiseFloor | None
    """What f16 shows against itself; ``None`` before the first cell was measured."""
    cells: tuple[Cell, ...]
    """The pairs, in the order of the matrix."""
    speed: tuple[SpeedCell, ...] = ()
    """Pairs that were timed, in the order of the cells."""
    ceilings: tuple[Ceiling, ...] = ()
    """Pairs whose largest context was searched."""
    unmeasured: tuple[Unmeasured, ...] = ()
    """Why speed tests that ran measured nothing."""
    advice: tuple[Advice, ...] = ()
    """The pair for each workload, from those that did not fail."""
    hardware: Hardware | None = None
    """The machine, where pairs were timed."""
    zoo: tuple[ZooCell, ...] = ()
    """Pairs on tiny models of other head sizes, groupings and features."""
    baselines: BaselinesRecord | None = None
    """Where accepted figures lie; ``None`` where cells are not compared with any."""
    invocation: tuple[str, ...] = ()
    """The options as typed, without those that choose cells and outputs."""
    schema: str = SCHEMA
    """The version of this shape."""
    complete: bool = True
    """Whether every selected test ran to its end; what is missing was interrupted, not left out."""
    unfinished: tuple[str, ...] = ()
    """Pairs of which a selected test did not end."""
    interruption: str = ""
    """What ended the run early, in words."""
    selection: Selection | None = None
    """What was asked for; ``None``: nobody recorded it."""
    sittings: tuple[Sitting, ...] = ()
    """In which go each part was measured, the earliest first."""
    decode_seconds: float = 0.0
    """Time that all workers of the quality matrix spent inside ``llama_decode``."""
    seconds: float = 0.0
    """Wall time from the first preparation to the last verdict."""
    timing: RunTiming | None = None
    """Where the seconds went."""

    @property
    def is_empty(self) -> bool:
        """Whether no test asked for a figure: there is nothing to tell."""
        return not (self.cells or self.speed or self.ceilings or self.zoo or self.unmeasured)

    @property
    def incomplete_text(self) -> str:
        """That a run is not complete, in one line."""
        pairs = self.selection.pairs if self.selection else tuple(cell.pair for cell in self.cells)
        measured = {cell.pair for cell in self.cells} & set(pairs)
        text = f"incomplete: {len(measured)} of {len(pairs)} pairs measured"
        if left := set(self.unfinished) & measured:
            text += f", {len(left)} of them not finished"
        return f"{text} ({self.interruption})" if self.interruption else text
