"""The largest context of every K/V pair; collected in nightly runs or with ``--kv-ceiling``."""

from __future__ import annotations

from pytest_kvquant.outcomes.memory import CellMemory


def test_context_ceiling(kv_memory: CellMemory) -> None:
    """A context as large as its floor is really allocated, filled, and decoded at its end."""
    kv_memory.check_ceiling()
