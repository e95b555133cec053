"""What tables of the configuration may say of pairs: floors, expectations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from pytest_kvquant.config.speed_tests import NAMES

if TYPE_CHECKING:

    class RatioOverrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        """Floors of each speed test, by its name."""

    Cliff: TypeAlias = str
else:
    RatioOverrides = msgspec.defstruct(
        "RatioOverrides",
        [(name, float | None, None) for name in NAMES],
        **{"frozen": True, "forbid_unknown_fields": True, "kw_only": True},
    )
    Cliff = Literal[(*NAMES, "both")]


class FloorOverride(
    RatioOverrides, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What ``[floors."K/V @ dN"]`` may say; a figure left out keeps its default.

    Of each speed test, by its name: the least speed over that of f16/f16.
    """

    slowdown: float | None = None
    """Most that the ratio may fall from one depth to the next, as a share of it."""
    stored: float | None = None
    """Least share of the stored speed of the same hardware."""
    cliff: float | None = None
    """A ratio under this in each of the first rounds is a cliff."""
    start: float | None = None
    """Least share of f16's speed at an empty cache, what grows with the depth taken away."""
    kept: float | None = None
    """Least share of the ratio that was stored on the same hardware."""
    compression: float | None = None
    """Least bytes per token of f16/f16 over those of the pair."""
    context: int | None = None
    """Least context that has to work, tokens."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"floor {name} = {value} must be a number above 0")
        if self.slowdown is not None and self.slowdown >= 1:
            raise ValueError(f"floor slowdown = {self.slowdown} is a share: it must be below 1")


MIXED = "mixed"
"""Held by a cache whose layers differ."""


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``[expect."K/V"]`` may say: known behaviour that must then really happen."""

    substituted: str | None = None
    """The pair, as ``K/V``, that the library makes of this one; ``mixed``: layers differ."""
    cliff: Cliff | None = None
    """The speed test in which this pair is known to be off the fast path; ``both``: in all."""
    off_device: bool | str | None = None
    """Whether its attention is known to run on the CPU though a GPU holds the cache: on any GPU, or
    on those whose name matches (``"MTL*"``). Its speed is then told, and not judged."""
    fails: tuple[str, ...] = ()
    """What is known to fail: a check (``attention``), a gate (``kl_mean``), an operation
    (``operations.shift_head``), or the verdict of a cell that cannot be measured (``crashed``)."""
    device: str | None = None
    """Pattern of devices (``MTL*``) on which that is so; ``None``: on all."""
    zoo: dict[str, tuple[str, ...]] = {}
    """The same as ``fails`` for members of the zoo, by patterns of their names."""

    def __post_init__(self) -> None:
        if self.substituted in (None, MIXED):
            return
        k, _, v = self.substituted.partition("/")
        if not k or not v or "/" in v:
            raise ValueError(
                f"expect substituted = '{self.substituted}' must be a pair, as q8_0/turbo3, or "
                f"'{MIXED}' where layers differ"
            )
