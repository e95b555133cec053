"""Messages that ask a cache what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_kvquant.engine.messages.base import Said

SideSpec = tuple[int, int, str, str, int, int]
"""Cache, place, side; type, rotation, elements of a head."""


@dataclass(frozen=True, kw_only=True)
class ProbeReference(Said):
    """Leave what the open ``f16/f16`` cell stores for the payload's tokens in a folder."""

    NAME: ClassVar = "probe_reference"
    folder: str
    singles: Sequence[int]
    """For each run, how many of the tokens come one at a time, at the end."""


@dataclass(frozen=True, kw_only=True)
class Probe(ProbeReference):
    """Run the same through the open cell, and compare."""

    NAME: ClassVar = "probe"
    widths: Sequence[tuple[int, int]]
    """Elements of a head, K and V, by cache."""


@dataclass(frozen=True, kw_only=True)
class WrongPart:
    """The part of some rows that is wrong; see
    :class:`pytest_kvquant.results.diagnosis.PatternRecord`."""

    units: Sequence[int]
    heads: Sequence[int]
    blocks: Sequence[int]
    first: int
    last: int
    share: float
    holds: str
    value: float | str | None


@dataclass(frozen=True, kw_only=True)
class SideFigures:
    """How one side of one layer, by one path, compares with the reference quantizer."""

    path: str
    cache: int
    place: int
    """Number of the layer within its cache."""
    side: str
    type: str
    rotation: int | None
    """Size of the Hadamard matrix that the build applies; 1: none; ``None``: another basis."""
    rows: int
    first: int
    last: int
    """Positions."""
    heads: int
    blocks: int
    """Units per head."""
    equal: float
    """Share of bytes equal."""
    nmse: float
    """Stored against reference-quantized, both read back."""
    rounding: float
    """NMSE of the type on a normal distribution."""
    explained: float
    """NMSE that the rounding of the source explains."""
    gram: float
    """NMSE of the rows' products with each other, which no rotation changes."""
    pattern: WrongPart | None


@dataclass(frozen=True, kw_only=True)
class Probed(Said):
    """The answer."""

    NAME: ClassVar = "probed"
    figures: Sequence[SideFigures]
    logits: Mapping[str, float]
    """Mean KL by path, nats."""
    problem: str | None
    """Why there are no figures."""


@dataclass(frozen=True, kw_only=True)
class EmulateCell(Said):
    """Play a healthy cell on the open ``f16/f16`` one, with the payload's tokens."""

    NAME: ClassVar = "emulate_cell"
    folder: str
    sides: Sequence[SideSpec]


@dataclass(frozen=True, kw_only=True)
class Strayed:
    """How far one side of one layer strays in a healthy cell."""

    cache: int
    place: int
    side: str
    nmse: float


@dataclass(frozen=True, kw_only=True)
class CellEmulated(Said):
    """The answer."""

    NAME: ClassVar = "emulated"
    propagation: Sequence[Strayed]
    kl: float
    """Mean, of the last tokens, nats."""
