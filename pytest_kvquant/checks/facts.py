"""Figures → checks: what a cell is, where it ran, and whether its paths agree with each other.

A gate weighs chance; a check states a fact about this cell on this build. Pure: data in, data out.
"""

from __future__ import annotations

from pytest_kvquant.results.cell import Check

FLOOR_FACTOR = 10.0
"""A figure within this many times what f16 shows is noise."""


def fact(
    name: str, verdict: str, text: str, *, figure: float | None = None, limit: float | None = None
) -> Check:
    """A check's record."""
    return Check(name=name, verdict=verdict, text=text, figure=figure, limit=limit)
