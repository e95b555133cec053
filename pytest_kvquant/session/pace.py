"""What the parts of earlier runs took here, for the forecast of the next one.

A small file in the user's cache: seconds a unit by phase, for runs under the same conditions.
Nothing but the forecast reads it, and a file that cannot be read is none.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pytest_kvquant.machine.files import replace

NAME = "pace.json"
MOST = 200
"""Runs that are remembered; the oldest go first."""

LOOPS = "kernels"
"""The folder of compiled loops, beside: :mod:`pytest_kvquant.numerics.compiled`, which a forecast
does not import, for that imports numba."""

Rates = dict[str, float]


def key(*conditions: object) -> str:
    """A name of the conditions, 16 hex digits."""
    return hashlib.sha256(repr(conditions).encode()).hexdigest()[:16]


def remembered(folder: Path, run: str) -> Rates:
    """Seconds a unit by phase of the last run under these conditions; empty: there was none."""
    return _read(folder).get(run, {})


def remember(folder: Path, run: str, rates: Mapping[str, float]) -> None:
    """Keep the rates of a run; what cannot be written is not kept."""
    known = _read(folder)
    older = known.pop(run, {})
    known[run] = {**older, **rates}
    while len(known) > MOST:
        del known[next(iter(known))]
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / NAME, msgspec.json.encode(known))


def kept_loops(folder: Path) -> int:
    """How many compiled loops runs have kept so far."""
    return sum(1 for _ in folder.glob(f"{LOOPS}/*/*.nbi"))


def _read(folder: Path) -> dict[str, Rates]:
    try:
        return msgspec.json.decode((folder / NAME).read_bytes(), type=dict[str, Rates])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
