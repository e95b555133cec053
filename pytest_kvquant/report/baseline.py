"""What a cell is beside what was accepted earlier, as the result carries it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

from pytest_kvquant.numerics.drift import Drift

if TYPE_CHECKING:
    from pytest_kvquant.report.result import Result

Verdict = Literal[
    "equal", "changed", "better", "worse", "inactive", "none", "other", "damaged", "accepted"
]
"""Those of :class:`Drift`; or no baseline, one of other tokens or another model, an unreadable one;
or accepted in this run."""

DRIFTED: tuple[Verdict, ...] = ("better", "worse", "inactive")
MISSING: tuple[Verdict, ...] = ("none", "other")


class BaselineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A cell against its baseline."""

    verdict: Verdict
    path: str
    """The baseline's file."""
    text: str
    """What was found, in a sentence."""
    drift: Drift | None = None
    """Paired figures, where both have chunks of the same tokens."""
    differences: tuple[str, ...] = ()
    """Conditions that differ and move figures by rounding: build, processor, batches, threads.
    Where there are none, the figures are expected to be equal to the last bit."""


class BaselinesRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Where the baselines of a run lie."""

    folder: str
    """Of this hardware, model, corpus and context."""
    orphans: tuple[str, ...] = ()
    """Files there that are of no cell of this matrix; reported, never deleted."""


def notes(result: Result) -> list[str]:
    """What a person should read about the baselines of a run, a line each."""
    if result.baselines is None:
        return []
    found = [(cell.pair, cell.baseline) for cell in result.cells if cell.baseline is not None]
    counts = Counter(WORDS[record.verdict] for _, record in found)
    lines = [f"{pair}: {one.text}" for pair, one in found if one.verdict not in SILENT]
    if counts:
        lines.append(f"baselines: {', '.join(f'{n} {word}' for word, n in counts.items())}")
    if orphans := result.baselines.orphans:
        lines.append(
            f"baselines of no cell of this matrix, in {result.baselines.folder}: "
            f"{', '.join(orphans)}; remove them if they are not of another configuration"
        )
    return lines


SILENT: tuple[Verdict, ...] = ("equal", "none", "accepted")
"""What is counted only: the tests say the rest."""

WORDS: dict[Verdict, str] = {
    "equal": "equal to the last bit",
    "changed": "changed within tolerance",
    "better": "better",
    "worse": "worse",
    "inactive": "at the noise floor",
    "none": "not accepted yet",
    "other": "of another measurement",
    "damaged": "damaged",
    "accepted": "accepted",
}
