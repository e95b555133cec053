"""What is timed of every pair, and when it is enough."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pytest_kvquant.config.speed_tests import NAMES
from pytest_kvquant.numerics.rounds import RoundRules


class SpeedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is timed, and when it is enough."""

    depths: tuple[int, ...]
    """Ascending."""
    tokens: dict[str, int]
    """Of each speed test, by its name; 0: it is not taken."""
    seconds: float
    """What a sample should take: the test is repeated until it does."""
    rules: RoundRules
    confirm: bool
    """Whether every fail is repeated in a fresh process; an unsteady one always is."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the tests, as far as they are wanted."""
        return tuple(kind for kind in NAMES if self.count(kind))

    def count(self, kind: str) -> int:
        """Tokens of a test."""
        return self.tokens[kind]

    def context(self, depth: int) -> int:
        """Tokens that a cache has to hold to be timed at ``depth``."""
        return depth + max(self.tokens.values())


def listed(depths: Iterable[int]) -> str:
    """Depths in words."""
    return ", ".join(f"{depth:,}" for depth in depths)
