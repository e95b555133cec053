"""A batch that only fills the cache: nodes of the last layer have no rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.mirror import Mirrors
from pytest_kvquant.engine.child.oracle import Oracle
from pytest_kvquant.engine.child.values import Values


def test_a_node_without_rows_is_not_looked_at() -> None:
    """ADD of no row to no row was a division by zero on arctic and cohere2."""
    values = cast(Values, SimpleNamespace(forget=lambda: None))
    oracle = Oracle(values, cast(Facts, None), Mirrors([0], unified=True), seed=0)
    node = cast(Any, SimpleNamespace(op="ADD", ne=(64, 0, 1, 1), elements=0))
    oracle.computed(node, 0)
    assert not oracle.unknown
    assert oracle.ledger.as_data() == []
