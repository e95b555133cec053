"""The budget of a gate or a check: what its declaration says of it is all there is to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.gate import Unit

Budgets = Mapping[str, float]
"""The most, or the least, that the figures of a pair may be, by key; each declared key is there."""

SURE = 2.6
"""Standard errors, over chunks, that the unfavourable end lies above the mean."""


class Shown(NamedTuple):
    """What a pair has shown, from which ``kvquant calibrate`` makes its budgets."""

    cell: Cell
    """A measured one, fit to be gated."""
    margin: float
    """Times what was measured; 2 is usual."""
    noise: float
    """Mean KL of f16 against itself, nats."""

    def times(self, mean: float, error: float | None) -> float:
        """The margin times the unfavourable end of a figure.

        Args:
            error: its standard error over chunks; ``None``: not known.
        """
        return self.margin * (abs(mean) + SURE * (error or 0.0))


Calibrated = Callable[[Shown], "float | None"]
"""A budget from what a pair has shown; ``None`` where it has not shown it."""


def of_chunks(name: str) -> Calibrated:
    """From a figure per chunk: the margin times its unfavourable end.

    Args:
        name: of the figure, as gates see it: ``kl``, ``flips``, or a gate's own name.
    """

    def calibrated(shown: Shown) -> float | None:
        values = np.asarray(shown.cell.per_chunk.get(name, ()), np.float64)
        if not values.size:
            return None
        error = float(values.std(ddof=1)) / values.size**0.5 if values.size > 1 else None
        return shown.times(float(values.mean()), error)

    return calibrated


class Budget(NamedTuple):
    """What a gate or a check holds its figure against, for every kind of pair and run.

    A row of ``data/budgets.toml`` may give it by pattern of pairs, and ``[budgets."K/V"]`` of the
    owner by pair; everything else is said here.
    """

    key: str
    """In ``[budgets."K/V"]`` and ``[drift."K/V"]``; of a gate of the prefill path also in the
    marker of a test."""
    unit: Unit
    """A share is at most 1."""
    default: float | None = None
    """Where no table has one; ``None``: it follows from another, or the tables are complete."""
    follows: tuple[str, float] | None = None
    """Where neither table nor default has one: so many times this other budget; its owner's then
    counts for both."""
    identical: float = 0.0
    """Of ``f16/f16`` against itself, batched alike."""
    rounded: float | None = None
    """Of ``f16/f16`` against its own logits after the rounding of a file of 16 bits
    (``--kv-reference-logits``). ``None``: a gate of the prefill path takes its default; anything
    else is compared with f16 itself, and takes :attr:`identical`."""
    drift: Callable[[float], float] | None = None
    """Between two builds, from the mean KL, nats, by which they may differ; ``None``: as where no
    table has one."""
    calibrated: Calibrated | None = None
    """What ``kvquant calibrate`` writes. ``None``: from a gate's own figure per chunk, if it has
    one; else nothing is written."""
    least: float = 0.0
    """What ``kvquant calibrate`` writes at least: under it, rounding alone would fail a pair on
    another machine."""
    always: bool = False
    """Whether it counts on every model, though nobody set it there: its author stands for it. Else
    it counts on the embedded model, and where ``[budgets]`` has it."""
