"""A drift in words: the same of a baseline and of two results that are compared."""

from __future__ import annotations

import math
from collections.abc import Collection

from pytest_kvquant import format
from pytest_kvquant.numerics.drift import Change, Drift


def sentence(found: Drift, apart: Collection[str], than: str = "the baseline") -> str:
    """A drift in words.

    Args:
        apart: conditions that differ.
        than: what the cell is compared with.
    """
    since = f"other {', '.join(apart)}" if apart else "under the same conditions"
    figures = "; ".join(
        moved(change) for change in found.changes if change.drifted or change.figure == "kl"
    )
    words = {
        "equal": f"equal to {than} to the last bit",
        "changed": f"changed, within tolerance ({since})",
        "worse": f"worse than {than} ({since})",
        "better": f"better than {than} ({since})",
        "inactive": f"KL fell from that of {than} to the noise floor ({since}): "
        "is the quantization still on?",
    }
    return f"{words[found.verdict]}{': ' if figures else ''}{figures} over {found.chunks} chunks"


def moved(change: Change) -> str:
    """How far a figure moved: in percent or its own unit, and in units of its own noise."""
    if change.figure == "kl":
        bound = "± ?" if change.reach is None else f"± {100 * change.reach:.2f} %"
        return (
            f"KL {format.kl(change.before)} → {format.kl(change.after)} "
            f"({100 * math.expm1(change.moved):+.2f} % {bound}, {_noises(change)}tolerated "
            f"{100 * change.tolerance:.1f} %)"
        )
    bound = "± ?" if change.reach is None else f"± {change.reach:.6f}"
    name = {"ln_ppl": "ln PPL", "top1": "top-1"}[change.figure]
    return (
        f"{name} {change.before:.6f} → {change.after:.6f} "
        f"({change.moved:+.6f} {bound}, {_noises(change)}tolerated {change.tolerance:g})"
    )


def _noises(change: Change) -> str:
    """In units of its own noise: how many standard errors over chunks it moved."""
    return "" if change.noise is None else f"{abs(change.noise):.1f} × its noise, "
