"""What a cache was found to hold, and the kernel that is suspected."""

from __future__ import annotations

from typing import Literal

import msgspec

Side = Literal["K", "V"]
Path = Literal["prefill", "decode"]

ALLOWED = 10.0
"""Times the difference that rounding explains; seen on healthy builds: 0 to 2.0."""

STRAY = 3.0
"""Times what an emulated cell strays in later layers; seen on healthy builds: 0.9 to 1.4."""

STRAY_FLOOR = 1e-4
"""NMSE that attention kernels add by rounding the query too."""

GRAM = 3.0
"""Times the type's rounding that products of rows may be off, where the basis is not known."""


class PatternRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The part of some rows that is wrong; see
    :class:`pytest_kvquant.engine.child.pattern.RowPattern`."""

    units: tuple[int, ...]
    """Rows by number, or head-block units, that are wrong."""
    heads: tuple[int, ...]
    """KV heads that are wrong."""
    blocks: tuple[int, ...]
    """Blocks within a head that are wrong."""
    first: int
    """Position of the first wrong row."""
    last: int
    """Position of the last wrong row."""
    share: float
    """Share of the values that are wrong, 0..1."""
    holds: Literal["zero", "scaled", "head", "block", "position", "rotation", "type", "other"]
    """What stands there instead."""
    value: float | str | None
    """Its factor, number or name, where it has one."""


class LayerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One side of one layer by one path: one field of the map layer × side × path."""

    path: Path
    """By which path the rows were stored."""
    layer: int
    """Of the model, where the cache tells; else its place within its cache."""
    clean: bool
    """Whether nothing but the quantizer stands between these rows and f16's."""
    side: Side
    """K or V."""
    type: str
    """ggml name of the type that is held."""
    rotation: int | None
    """Size of the Hadamard matrix applied before quantizing; 1: none; ``None``: unknown basis."""
    rows: int
    """Rows compared."""
    first: int
    """Position of the first row."""
    last: int
    """Positions of the first and last row."""
    heads: int
    """KV heads of a row."""
    blocks: int
    """Per head."""
    equal: float
    """Share of bytes equal to the reference quantizer's."""
    nmse: float
    """Stored against reference-quantized, both read back by the type's own ``to_float``."""
    rounding: float
    """NMSE of the type itself, on normally distributed values."""
    explained: float
    """NMSE that the rounding of the source to f16 explains."""
    gram: float
    """NMSE of the rows' products with each other, against f16's; no rotation changes it."""
    expected: float | None = None
    """NMSE of a healthy cell, where one was emulated."""
    pattern: PatternRecord | None = None
    """The part of the rows that is wrong; none where they are right."""

    @property
    def bound(self) -> float | None:
        """The most that ``nmse`` may be; ``None`` where nothing is known of it."""
        if self.clean:
            return None if self.rotation is None else ALLOWED * self.explained
        return None if self.expected is None else STRAY * self.expected + STRAY_FLOOR

    @property
    def wrong(self) -> bool:
        """Whether the rows are beyond their bound."""
        if self.clean and self.rotation is None:
            return not self.gram <= GRAM * self.rounding
        return self.bound is not None and not self.nmse <= self.bound


class PathKL(msgspec.Struct, frozen=True, kw_only=True):
    """Mean KL against f16 on the probe's last tokens, in nats."""

    prefill: float
    """Nats, many tokens at once."""
    decode: float
    """Nats, one token at a time."""
    expected: float | None = None
    """Of a healthy cell, where one was emulated."""


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel to look at."""

    kernel: Literal["quantizer", "attention"]
    """``quantizer``: set-rows, which quantizes and stores. ``attention``: which reads."""
    side: Literal["K", "V", "both"]
    """K, V or both."""
    path: Literal["prefill", "decode", "both"]
    """By which path; both where it shows by either."""
    layers: tuple[int, ...]
    """Layers of the model that show it."""
    confidence: Literal["high", "medium"]
    """How sure that is."""
    sentence: str
    """The suspicion in a sentence."""
    pattern: PatternRecord | None = None
    """The part that is wrong."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache says of a cell."""

    verdict: Literal["healthy", "suspect", "rounding", "not localized"]
    """``rounding``: the cell fails, and what its types round away explains it."""
    sentence: str
    """What the cache says of the cell, in one sentence."""
    suspects: tuple[Suspect, ...] = ()
    """Kernels to look at."""
    fits: tuple[str, ...] = ()
    """Observations that speak for the verdict."""
    against: tuple[str, ...] = ()
    """Observations that do not fit, or that are missing."""
    figures: tuple[LayerFigures, ...] = ()
    """One entry per layer, side and path."""
    logits: PathKL | None = None
    """KL of the probe's tokens by path; none where they were not compared."""
    seconds: float = 0.0
    """Wall time of the probe."""
