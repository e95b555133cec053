"""Memory of every K/V pair."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import declared_tests
from pytest_kvquant.outcomes.memory import CellMemory

globals().update(declared_tests("memory"))


def test_kv_footprint(kv_memory: CellMemory) -> None:
    """A token takes as few bytes as the pair's types promise."""
    kv_memory.check_footprint()
