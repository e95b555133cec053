"""What a person should read about the baselines of a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_kvquant.results.result import Result
from pytest_kvquant.results.baseline import Verdict


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
    "none": "not accepted yet (--snapshot-update accepts)",
    "other": "of another measurement",
    "damaged": "damaged",
    "accepted": "accepted",
    "proposed": "better and proposed",
}
