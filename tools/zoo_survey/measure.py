"""One architecture through the whole run: ``python -m tools.zoo_survey.measure MODEL PAIRS [LIB]``.

Prints one line of JSON: the verdict of each pair, and what of it is a fault of this project.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, Literal

import msgspec

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.errors import RunRefused
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.session.observer import Listener
from pytest_kvquant.session.run import Session

Status = Literal["measured", "unsupported", "library", "refused", "ours"]

MADE_FOR_LANGUAGE = frozenset({"trajectory", "measurable"})
"""Checks whose limits are budgets: random weights are not what they were made for."""

LACKING = frozenset({"off_device", "attention_placement"})
"""Checks that tell of kernels which the device does not have."""

IN_LIBRARY = ("crashed", "timeout", "out-of-memory", "non-finite")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one architecture, or of one pair of it."""

    status: Status
    """``measured``; ``unsupported`` by the library, ``library``: it crashes or computes no numbers;
    ``refused`` by this project in one line; ``ours``: a false alarm or an error."""
    text: str = ""


def survey(
    model: Path, pairs: list[str], library: str | None, python: str | None
) -> dict[str, Finding]:
    """Measure the pairs of one model; the key ``*`` speaks for all of them."""
    with tempfile.TemporaryDirectory(prefix="zoo-survey-") as folder:
        settings = Settings(
            model=model,
            pairs=tuple(pairs),
            lib=Path(library) if library else None,
            python=Path(python) if python else None,
            ctx=128,
            chunks=2,
            decode=16,
            trajectory=2,
            threads=1,
            timeout=60,
            coverage="minimal",
            store=Path(folder),
        )
        try:
            session = Session(settings, dict(os.environ), Listener())
            found = {str(pair): _judged(session, pair) for pair in session.pairs}
            session.result()
        except RunRefused as error:
            return {"*": Finding(status="refused", text=str(error))}
        except Exception:  # whatever it is, it is ours
            return {"*": Finding(status="ours", text=traceback.format_exc(limit=-3))}
    return found


def _judged(session: Any, pair: Pair) -> Finding:
    cell: Cell = session.measure(pair)
    if cell.verdict == "unsupported":
        return Finding(status="unsupported", text=cell.message or "")
    if cell.verdict in IN_LIBRARY:
        return Finding(status="library", text=f"{cell.verdict}: {cell.message}")
    checks = [*session.checked(pair).checks]
    if (footprint := session.footprint(pair)) is not None:
        checks.append(footprint)
    failing = [
        check for check in checks if check.verdict == "fail" and check.name not in MADE_FOR_LANGUAGE
    ]
    if failing and {check.name for check in failing} <= LACKING:
        return Finding(status="library", text=failing[0].text)
    padded = cell.census is not None and cell.census.kind == "padded"
    if padded and {check.name for check in failing} == {"footprint"}:
        return Finding(status="library", text=cell.census.text if cell.census else "")
    wrong = [f"{check.name}: {check.text}" for check in failing if check.name not in LACKING]
    if wrong or not cell.gates:
        return Finding(status="ours", text="; ".join(wrong) or str(cell.message))
    census = cell.census
    assert census is not None
    notes = [census.text] if census.source == "f16" or not census.understood else []
    notes += [
        f"{check.name}: {check.text}"
        for check in checks
        if check.verdict == "inconclusive" and check.name not in MADE_FOR_LANGUAGE
    ]
    return Finding(status="measured", text="; ".join(notes))


if __name__ == "__main__":
    lib, interpreter = [*sys.argv[3:], None, None][:2]
    seen = survey(Path(sys.argv[1]), sys.argv[2].split(), lib or None, interpreter or None)
    print(json.dumps(msgspec.to_builtins(seen)))
