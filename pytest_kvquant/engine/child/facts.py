"""Child side: what the model's header says of its attention; nothing of it comes from a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_kvquant.numerics.rope import IMROPE, MROPE, NEOX

RopeFields = Mapping[str, float | Sequence[int]]
"""Fields of a rope by the model's header; ``factors``: whether its frequencies have divisors."""

TOLERANCE = 1e-4
"""Relative difference of a parameter that is kept in f32."""


class Facts(NamedTuple):
    """Per model; ``None`` where the header does not say or the architecture is not known."""

    scale: float | None = None
    softcap: float | None = None
    bias: float | None = None
    """ALiBi's largest bias."""
    sinks: tuple[int, ...] | None = None
    """Layers whose attention has sinks."""
    window_length: int = 0
    windowed: tuple[bool, ...] | None = ()
    """Per layer; empty: none has a window."""
    chunked: bool = False
    """Whether windows begin at multiples of their length."""
    ropes: RopeFields | None = None
    """Of layers without a window."""
    ropes_of_windows: RopeFields | None = None
    """The same of layers with a window."""
    turned: tuple[bool, ...] | None = None
    """Per layer, whether its queries and keys come through a rope."""
    rotated: tuple[str, ...] = ()
    """Types of K and V in this context: some quantizers rotate, and the graph with them."""

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> Facts:
        """Out of a message's fields."""
        told = {**cls._field_defaults, **fields}
        found = (told[name] for name in cls._fields)
        return cls._make(tuple(value) if isinstance(value, list) else value for value in found)

    def window(self, layer: int) -> int | None:
        """Tokens that a layer looks back on; 0: all, ``None``: not known."""
        if not self.window_length:
            return 0
        if self.windowed is None or layer >= len(self.windowed):
            return None
        return self.window_length if self.windowed[layer] else 0

    def windows(self, layer: int) -> tuple[int, ...]:
        """What a layer may look back on: where the header does not say which layers have the
        window, all tokens or the window."""
        window = self.window(layer)
        return (0, self.window_length) if window is None else (window,)

    def rope(self, layer: int) -> RopeFields | None:
        """What the header says of a layer's rope."""
        if self.window(layer) is None:
            return self.ropes if self.ropes == self.ropes_of_windows else None
        return self.ropes_of_windows if self.window(layer) else self.ropes

    def rope_of_shift(self, layer: int) -> RopeFields | None:
        """The same of a context shift, which knows nothing of sections and one YaRN for all."""
        known, full = self.rope(layer), self.ropes
        if known is None or full is None or known.get("ext") != full.get("ext"):
            return None
        found = {name: value for name, value in known.items() if name != "sections"}
        if found["mode"] in (MROPE, IMROPE):
            found["mode"] = NEOX
        return found

    def unsaid(self, scale: float | None) -> list[str]:
        """What of an attention node could not be compared with the header, in words.

        Args:
            scale: of the node, all in all; ``None`` where it is not known.
        """
        compared = {
            "scale": self.scale is not None and scale is not None,
            "softcap": self.softcap is not None,
            "ALiBi bias": self.bias is not None,
        }
        return [f"{name} against the header" for name, done in compared.items() if not done]

    def wrong_sinks(self, layer: int, has: bool) -> str:
        """What is wrong with a layer's attention that has sinks or has none; or nothing."""
        if self.sinks is None or has == (layer in self.sinks):
            return ""
        return (
            "it has sinks, and the model's file has none for it" if has
            else "it has no sinks, and the model's file has them"
        )  # fmt: skip

    def differing(self, scale: float | None, softcap: float, bias: float) -> str:
        """What an attention node says otherwise than the header, in words; or nothing.

        Args:
            scale: of queries times keys, all in all; ``None`` where it is not known.
        """
        for name, meant, found in (
            ("scale", self.scale, scale),
            ("softcap", self.softcap, softcap),
            ("ALiBi bias", self.bias, bias),
        ):
            if meant is None or found is None:
                continue
            if abs(found - meant) > TOLERANCE * max(abs(meant), 1e-9):
                return f"its {name} is {found:g}, by the model's header {meant:g}"
        return ""
