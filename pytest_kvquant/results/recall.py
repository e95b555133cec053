"""How far back a cell still recalls what it has read, as the result carries it."""

from __future__ import annotations

from typing import Literal

import msgspec


class RecallPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One distance: what f16 and the cell gain from having read a passage before."""

    distance: int
    """Tokens between a passage's token and the same token of its repeat."""
    passages: int
    """That were read twice at this distance."""
    reference: float
    """Mean gain of f16, nats a token: NLL of the passage first read less that of its repeat."""
    gain: float
    """The same of the cell."""
    hits_reference: float
    """Share of the repeated tokens that f16 found likeliest, 0..1."""
    hits: float
    """The same of the cell."""
    kept: float | None
    """Gain of the cell over that of f16; ``None`` where f16 itself gains nothing."""
    low: float | None
    """Lower end of its interval."""
    high: float | None
    """Upper end of its interval."""
    verdict: Literal["pass", "fail", "inconclusive", "cannot"]
    """Against the floor; ``cannot``: this model cannot recall at that distance, even with f16."""

    @property
    def text(self) -> str:
        """The finding in words."""
        if self.verdict == "cannot":
            return f"{self.distance:,}: this model cannot recall at that distance"
        kept = "no number" if self.kept is None else f"{self.kept:.0%}"
        return f"{self.distance:,}: {kept} of the {self.reference:.2f} nats of f16"
