"""Patterns of the configuration that name pairs, at any depth or at one: ``K/V @ dN``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from pytest_kvquant.errors import SettingsError
from pytest_kvquant.matrix import Pair

_PLACE = re.compile(r"(?P<pair>[^@]+?)(?:\s*@\s*d(?P<depth>[\d*?]+))?")


class DepthPattern(NamedTuple):
    """Pairs, and depths."""

    pair: str
    depth: str | None
    """``None``: any."""

    def matches(self, pair: Pair, depth: int) -> bool:
        """Whether this names a pair at a depth; ``*`` matches anything.

        >>> place = DepthPattern.parse("*/* @ d8*", "floors")
        >>> place.matches(Pair("f16", "f16"), 8192), place.matches(Pair("f16", "f16"), 0)
        (True, False)
        """
        in_depth = self.depth is None or fnmatchcase(str(depth), self.depth)
        return pair.matches(self.pair) and in_depth

    @classmethod
    def parse(cls, pattern: str, table: str) -> DepthPattern:
        """Read ``K/V`` or ``K/V @ dN``.

        Args:
            table: the table of the configuration that it stands in.

        Raises:
            SettingsError: it is neither.
        """
        found = _PLACE.fullmatch(pattern.strip())
        if found is None or len(found["pair"].split("/")) != 2 or not all(found["pair"].split("/")):
            raise SettingsError(
                f'[{table}] \'{pattern}\' is not a pair: write "K/V" or "K/V @ dN", for example '
                '"*/turbo4 @ d65536".'
            )
        return cls(found["pair"], found["depth"])


def unused(patterns: Iterable[str], table: str, pairs: Iterable[Pair]) -> list[str]:
    """Patterns whose pair is no cell of the run, at whatever depth: a typing error as a rule.

    Raises:
        SettingsError: a malformed pattern.
    """
    cells = list(pairs)
    parsed = {pattern: DepthPattern.parse(pattern, table) for pattern in patterns}
    return [
        pattern
        for pattern, place in parsed.items()
        if not any(pair.matches(place.pair) for pair in cells)
    ]
