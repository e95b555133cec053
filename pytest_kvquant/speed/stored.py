"""Speeds that an earlier run on the same hardware stored, as the speed tests look them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pytest_kvquant.matrix import Pair


class Stored(NamedTuple):
    """Median tok/s of a test, then."""

    cell: float
    reference: float
    rate: float | None = None
    """Bytes or operations a second that the machine did then; ``None``: not measured."""

    @property
    def ratio(self) -> float:
        """Of the two."""
        return self.cell / self.reference


class StoredSpeed:
    """Finds stored speeds; empty where there is no baseline or it is of other hardware."""

    def __init__(self, tests: Mapping[tuple[str, str, int, int], Stored] | None = None) -> None:
        self._tests = dict(tests or {})

    def find(self, pair: Pair, kind: str, count: int, depth: int) -> Stored | None:
        """The stored speed of a test."""
        return self._tests.get((str(pair), kind, count, depth))
