"""Messages of the measure of what a machine does at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pytest_kvquant.engine.messages.base import Said


@dataclass(frozen=True, kw_only=True)
class MeasureRates(Said):
    """Read memory, and multiply matrices, as fast as it goes."""

    NAME: ClassVar = "rates"
    device: str | None
    """The device that computes, by ggml's name; ``None``: the CPU."""
    size: int
    """Bytes to read over and over."""
    threads: int
    """Of the CPU."""


@dataclass(frozen=True, kw_only=True)
class RatesMeasured(Said):
    """The answer."""

    NAME: ClassVar = "rates_measured"
    read: float
    """Bytes a second; 0: it could not be measured."""
    multiply: float
    """Multiplications and additions a second."""
