"""When a gate may speak, and how wrong it may be."""

from __future__ import annotations

import msgspec

LEAST_CHUNKS = 3
"""An interval decides from here on: one chunk has no spread, and that of two is a coin toss."""


LOOKS = (4, 8, 16, 32)
"""Chunk counts at which an interval may decide."""

LONG_LOOKS = (*LOOKS, 64, 128)
"""The same where more chunks are drawn: a ratio has no census, it needs looks at them."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a gate may speak, and how wrong it may be.

    Raises:
        ValueError: for an alpha outside (0, 1), looks that do not ascend from 1, or no cap.
    """

    alpha: float = 0.01
    """Error allowed a side: of a false FAIL, and of a false PASS, over all looks together."""
    looks: tuple[int, ...] = LOOKS
    """Chunk counts at which an interval may decide, each with its part of alpha."""
    cap: int = 32
    """The most chunks. Later ones are not looked at; a look beyond it is taken at it."""
    census: bool = False
    """At the cap, decide what is open by the plain mean: a statement on these very chunks."""
    early: bool = True
    """False: judge once, at the cap, as one look that has all of alpha."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha lies between 0 and 1, got {self.alpha}")
        if not self.looks or self.looks[0] < 1 or list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"looks ascend from at least 1, got {self.looks}")
        if self.cap < 1:
            raise ValueError(f"the cap is at least one chunk, got {self.cap}")

    @property
    def e_threshold(self) -> float:
        """1/alpha: what an e-value must reach to fail (Ville 1939)."""
        return 1 / self.alpha

    @property
    def schedule(self) -> tuple[int, ...]:
        """The looks that can happen under this cap, ascending."""
        if not self.early:
            return (self.cap,)
        return tuple(sorted({min(look, self.cap) for look in self.looks}))

    @property
    def level(self) -> float:
        """Error of one end of an interval at one look: alpha shared equally among the looks.

        With four looks alpha/4. A cap that leaves fewer of them does not raise it, so
        that the same evidence reads the same under every cap.
        """
        return self.alpha / self.looks_planned

    @property
    def looks_planned(self) -> int:
        """Among how many looks alpha is shared."""
        return len(self.looks) if self.early else 1


PROFILES = {
    "quick": Rules(cap=8),
    "pr": Rules(cap=32),
    "nightly": Rules(cap=128, looks=LONG_LOOKS, census=True),
}
"""Most chunks, and whether what is open at that point is then decided by the plain mean."""
