"""Child side: what the model's header says of its attention; nothing of it comes from a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TOLERANCE = 1e-4
"""Relative difference of a parameter that is kept in f32."""


class Facts(NamedTuple):
    """Per model; ``None`` where the header does not say or the architecture is not known."""

    scale: float | None = None
    softcap: float | None = None
    bias: float | None = None
    """ALiBi's largest bias."""
    window_length: int = 0
    windowed: tuple[bool, ...] | None = ()
    """Per layer; empty: none has a window."""
    chunked: bool = False
    """Whether windows begin at multiples of their length."""
    ropes: Mapping[str, float] | None = None
    """Fields of a rope."""
    ropes_of_windows: Mapping[str, float] | None = None
    """The same of layers with a window."""
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

    def rope(self, layer: int) -> Mapping[str, float] | None:
        """What the header says of a layer's rope."""
        if self.window(layer) is None:
            return None
        return self.ropes_of_windows if self.window(layer) else self.ropes

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
