"""What the oracle makes of nodes: those without rows, and what a query came through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.mirror import Mirrors
from pytest_kvquant.engine.child.oracle import Oracle, scaled_before
from pytest_kvquant.engine.child.values import Values


def test_a_node_without_rows_is_not_looked_at() -> None:
    """ADD of no row to no row was a division by zero on arctic and cohere2."""
    values = cast(Values, SimpleNamespace(forget=lambda: None))
    oracle = Oracle(values, cast(Facts, None), Mirrors([0], unified=True), seed=0)
    node = cast(Any, SimpleNamespace(op="ADD", ne=(64, 0, 1, 1), elements=0))
    oracle.computed(node, 0)
    assert not oracle.unknown
    assert oracle.ledger.as_data() == []


def test_a_scale_before_a_rotation_counts() -> None:
    """Gemma scales its queries before they are rotated: a quantized K was called wrong."""
    projection = SimpleNamespace(op="MUL_MAT", name="Qcur", source=lambda _: None)
    scaled = SimpleNamespace(op="SCALE", floats=[0.0625, 0.0], source=lambda _: projection)
    matrix = SimpleNamespace(name="attn_inp_k_rot")
    turned = SimpleNamespace(op="MUL_MAT", source=lambda number: (matrix, scaled)[number])
    query = SimpleNamespace(op="PERMUTE", source=lambda _: turned)
    assert scaled_before(cast(Any, query)) == 0.0625
