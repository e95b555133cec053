"""Floors per pair and depth: the packaged defaults, overlaid by ``[floors."K/V @ dN"]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from pytest_kvquant.config.overrides import FloorOverride
from pytest_kvquant.config.packaged import read_limits
from pytest_kvquant.config.patterns import DepthPattern
from pytest_kvquant.config.speed_tests import SPEED_TESTS
from pytest_kvquant.data import DATA
from pytest_kvquant.matrix import Pair

DEFAULTS = DATA / "floors.toml"


if TYPE_CHECKING:

    class Ratios(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        """Floors of each speed test, by its name."""
else:
    Ratios = msgspec.defstruct(
        "Ratios",
        [
            (one.name, float) if one.floor is None else (one.name, float, one.floor)
            for one in SPEED_TESTS
        ],
        **{"frozen": True, "forbid_unknown_fields": True, "kw_only": True},
    )


class Floors(Ratios, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The least that the speed figures of one pair may be, at one depth.

    Of each speed test, by its name: its speed over that of f16/f16.
    """

    slowdown: float
    """Most that the ratio may fall from one depth to the next; more is a cliff."""
    stored: float
    """Share of the stored speed of the same hardware."""
    cliff: float = 0.5
    """A ratio under this in each of the first rounds is a cliff."""
    start: float = 0.0
    """Share of f16's speed at an empty cache, what grows with the depth taken away; 0: none."""
    kept: float = 0.75
    """Share of the ratio that was stored on the same hardware."""
    compression: float | None = None
    """Bytes per token of f16/f16 over those of the pair; ``None``: what geometry says."""
    context: int | None = None
    """Tokens that have to fit."""

    def ratio(self, kind: str) -> float:
        """The floor of a speed test."""
        found: float = getattr(self, kind)
        return found


def resolve_floors(
    pair: Pair,
    depth: int,
    *,
    embedded: bool,
    overrides: Mapping[str, FloorOverride],
    same_pair: bool = False,
    backend: str = "",
) -> Floors:
    """Floors of a pair at a depth; later patterns overlay earlier ones.

    Args:
        same_pair: over the speed of the same pair on another build.
        backend: ggml's name of the device that computes, ``CPU``, ``CUDA0``, ``Metal``.

    Raises:
        SettingsError: a malformed pattern.
    """
    table = read_limits(DEFAULTS)
    values: dict[str, float] = {}
    sections = ["embedded"] if embedded else ["other", *_class_of(backend)]
    if same_pair and not embedded:
        sections.append("drift")
    for section in sections:
        for pattern, entry in table[section].items():
            if DepthPattern.parse(pattern, "floors").matches(pair, depth):
                values |= entry
    for pattern, override in overrides.items():
        if DepthPattern.parse(pattern, "floors").matches(pair, depth):
            given = msgspec.to_builtins(override)
            values |= {name: value for name, value in given.items() if value is not None}
    return msgspec.convert(values, Floors)


def _class_of(backend: str) -> tuple[str, ...]:
    """The section of the hardware's class; none of a device that nobody has measured.

    >>> _class_of("CUDA1"), _class_of("MTL0"), _class_of("Vulkan0")
    (('cuda',), ('metal',), ())
    """
    name = backend.rstrip("0123456789").lower()
    found = {"cpu": "cpu", "cuda": "cuda", "metal": "metal", "mtl": "metal"}.get(name)
    return (found,) if found else ()
