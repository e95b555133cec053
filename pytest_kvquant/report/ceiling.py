"""The ceiling part of the result."""

from __future__ import annotations

import msgspec


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One context, tried in a process of its own."""

    context: int
    outcome: str
    """``fits``, or how the attempt ended: ``out-of-memory``, ``crashed``, ``unsupported``, …"""
    text: str
    seconds: float


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """The largest context of a pair that was allocated, filled, and decoded at its end."""

    pair: str
    tokens: int
    """0: none of those tried."""
    bound: int
    """The largest that was tried: the limit, or what memory could hold at best."""
    predicted: int
    """What ``kvquant doctor`` predicts: tokens whose cache fills what the weights leave."""
    memory: int
    """Bytes that a process might use."""
    bytes_per_token: int
    attempts: tuple[Attempt, ...]
    seconds: float

    @property
    def text(self) -> str:
        """The finding in words."""
        if not self.tokens:
            last = self.attempts[-1]
            return f"no context works: {last.context:,} tokens: {last.outcome}. {last.text}"
        where = ", the largest tried" if self.tokens == self.bound else ""
        share = f", {self.tokens / self.predicted:.0%} of" if self.predicted else ";"
        return (
            f"{self.tokens:,} tokens work{where}{share} the {self.predicted:,} that kvquant doctor "
            f"predicts by {self.bytes_per_token:,} bytes per token"
        )
