"""Figures → checks: what a cell is, where it ran, and whether its paths agree with each other.

A gate weighs chance; a check states a fact about this cell on this build. Pure: data in, data out.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from pytest_kvquant.results.cell import Check

FLOOR_FACTOR = 10.0
"""A figure within this many times what f16 shows is noise."""


def unseen(name: str, what: str) -> Check:
    """A check whose input is not there: nothing was seen, so nothing passes."""
    return Check(name=name, verdict="inconclusive", text=f"{what} was not measured: not looked at")


def fact(
    name: str, verdict: str, text: str, *, figure: float | None = None, limit: float | None = None
) -> Check:
    """A check's record; one that rests on what is no number has not been seen to pass."""
    odd = [value for value in (figure, limit) if value is not None and not math.isfinite(value)]
    if verdict == "pass" and odd:
        verdict, text = "inconclusive", f"{text}; a figure is no number ({odd[0]})"
    return Check(name=name, verdict=verdict, text=text, figure=figure, limit=limit)


def listed(texts: Collection[str], most: int = 3) -> str:
    """The first ones, and how many more there are."""
    shown = list(texts)[:most]
    more = len(texts) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
