"""What is timed of every pair, and when it is enough."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pytest_kvquant.numerics.rounds import RoundRules

KINDS = ("pp", "tg")


class SpeedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is timed, and when it is enough."""

    depths: tuple[int, ...]
    """Ascending."""
    prompt: int
    """Tokens of the prefill test; 0: none."""
    generate: int
    """Tokens of the decode test; 0: none."""
    seconds: float
    """What a sample should take: the test is repeated until it does."""
    rules: RoundRules
    confirm: bool
    """Whether every fail is repeated in a fresh process; an unsteady one always is."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """``pp`` and ``tg``, as far as they are wanted."""
        return tuple(kind for kind in KINDS if self.count(kind))

    def count(self, kind: str) -> int:
        """Tokens of a test."""
        return self.prompt if kind == "pp" else self.generate

    def context(self, depth: int) -> int:
        """Tokens that a cache has to hold to be timed at ``depth``."""
        return depth + max(self.prompt, self.generate)


def listed(depths: Iterable[int]) -> str:
    """Depths in words."""
    return ", ".join(f"{depth:,}" for depth in depths)
