"""What a cell is beside what was accepted earlier, as the result carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from pytest_kvquant.numerics.drift import Drift

if TYPE_CHECKING:
    pass


Verdict = Literal[
    "equal",
    "changed",
    "better",
    "worse",
    "inactive",
    "none",
    "other",
    "damaged",
    "accepted",
    "proposed",
]
"""Those of :class:`Drift`; or no baseline, one of other tokens or another model, an unreadable one;
or accepted in this run; or better, and proposed in its place (``--kv-ratchet``)."""

DRIFTED: tuple[Verdict, ...] = ("better", "worse", "inactive")
MISSING: tuple[Verdict, ...] = ("none", "other")


class BaselineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A cell against its baseline."""

    verdict: Verdict
    """What the comparison found."""
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
