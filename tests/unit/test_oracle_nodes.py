"""What the oracle makes of nodes: those without rows, and what a query came through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pytest_kvquant.engine.child import judge_plain, judge_write
from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.mirror import Mirrors
from pytest_kvquant.engine.child.nodes import Ggml, Node
from pytest_kvquant.engine.child.oracle import Oracle
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.engine.child.ways import scaled_before


def test_a_node_without_rows_is_not_looked_at() -> None:
    """ADD of no row to no row was a division by zero on arctic and cohere2."""
    values = cast(Values, SimpleNamespace(forget=lambda: None))
    oracle = Oracle(values, cast(Facts, None), Mirrors([0], unified=True), seed=0)
    node = cast(Any, SimpleNamespace(op="ADD", ne=(64, 0, 1, 1), elements=0))
    oracle.computed(node, 0)
    assert not oracle.unknown
    assert oracle.ledger.corners() == []


def fake(**fields: Any) -> Any:
    """A node that the scheduler has not copied."""
    node = SimpleNamespace(**fields)
    node.original = node
    return node


def test_a_scale_before_a_rotation_counts() -> None:
    """Gemma scales its queries before they are rotated: a quantized K was called wrong."""
    matrix = fake(name="attn_inp_k_rot")
    projection = fake(op="MUL_MAT", name="Qcur", source=lambda _: None)
    scaled = fake(op="SCALE", floats=[0.0625, 0.0], source=lambda _: projection)
    turned = fake(op="MUL_MAT", source=lambda number: (matrix, scaled)[number])
    query = fake(op="PERMUTE", source=lambda _: turned)
    assert scaled_before(query) == 0.0625


def copied_mask(given: list[list[float]]) -> list[Any] | None:
    """What is found of a copy of a mask that holds these values."""
    meant = np.array([[0.0, -np.inf], [0.0, 0.0]])
    mask = fake(op="NONE", name="attn_inp_kq_mask", type="f32")
    node = fake(op="CPY", name="KQ_mask (copy)", type="f16", ne=(2, 2, 1, 1), backend="CPU",
                source=lambda number: None if number else mask)  # fmt: skip
    node.root = node
    held = {id(mask): meant, id(node): np.array(given)}
    values = cast(
        Values, SimpleNamespace(overwritten=lambda *_: False, whole=lambda one: held[id(one)])
    )
    return judge_plain.judge(cast(Node, node), values, 0)


def test_a_mask_under_way_is_not_a_node_that_nobody_understands() -> None:
    """The fork casts its mask to f16: each of its runs, and each on CUDA, was left open by that."""
    found = copied_mask([[0.0, -np.inf], [0.0, 0.0]])
    assert found is not None
    assert [one.text for one in found] == [""]


@pytest.mark.parametrize("given", [[[0.0, 0.0], [0.0, 0.0]], [[0.0, -np.inf], [0.0, -np.inf]]])
def test_a_copy_that_hides_what_its_input_shows_is_wrong(given: list[list[float]]) -> None:
    """Any node that held -inf, or had a mask's name, was right."""
    found = copied_mask(given)
    assert found is not None
    assert "KQ_mask" in found[0].text


def test_a_write_of_another_form_is_not_passed() -> None:
    """Rows in several dimensions, and copies of other types, were right whatever they held."""
    values, rng = cast(Values, None), np.random.default_rng(0)
    one, many = SimpleNamespace(ne=(8, 2, 1, 1)), SimpleNamespace(ne=(8, 2, 3, 1), type="f32")
    rows = cast(Any, SimpleNamespace(source=lambda at: (many, one)[at]))
    assert judge_write.judge(rows, values, rng, 0) is None
    half = SimpleNamespace(ne=(8, 2, 1, 1), type="f16")
    copy = cast(Any, fake(source=lambda _: half, ne=(8, 2, 1, 1), root=fake(op="NONE")))
    assert judge_write.judge_copy(copy, values, rng, 0) is None


def test_rows_are_overwritten_before_they_are_written() -> None:
    """A row that a kernel forgot held what a larger batch of the same tokens had put there."""
    written: dict[int, int] = {}
    ggml = SimpleNamespace(
        row_bytes=lambda _, elements: 2 * elements,
        write=lambda _, data, offset: written.update({offset: len(data)}),
    )
    root = SimpleNamespace(ggml=ggml, type="f16", ne=(8, 512, 1, 1), nb=(2, 16, 0, 0), raw=None)
    source = SimpleNamespace(ne=(8, 2, 1, 1))
    node = cast(Any, SimpleNamespace(root=root, source=lambda _: source))
    judge_write.blank(node, np.array([250, 251, 7, 6]))
    assert written == {250 * 16: 32, 7 * 16: 16, 6 * 16: 16}  # neighbours at once
    written.clear()
    root.nb = (2, 24, 0, 0)  # rows with gaps between them
    judge_write.blank(node, np.array([250, 251]))
    assert written == {250 * 24: 16, 251 * 24: 16}
    transposed = cast(Any, SimpleNamespace(root=root, source=lambda _: SimpleNamespace(ne=(1, 16))))
    judge_write.blank(transposed, np.array([0]))
    assert len(written) == 2


@pytest.mark.parametrize("name", sorted(judge_plain.FUNCTIONS))
def test_gates_in_single_precision_are_right(name: str) -> None:
    """As libraries compute them, over all values that a gate may have, one a row or many."""
    x = np.linspace(-30, 30, 2001).astype(np.float32)
    one = np.float32(1)
    alike = {
        "SIGMOID": one / (one + np.exp(-x)), "SILU": x / (one + np.exp(-x)), "TANH": np.tanh(x),
        "SOFTPLUS": np.where(x > 20, x, np.log(one + np.exp(x))), "RELU": np.maximum(x, 0),
        "ABS": np.abs(x), "NEG": -x,
    }  # fmt: skip
    for shape in ((2001, 1), (1, 2001)):
        source = fake(op="MUL_MAT", type="f32")
        node = fake(op="UNARY", function=name, name="gate", type="f32", backend="CPU",
                    ne=(*reversed(shape), 1, 1), source=lambda at, s=source: None if at else s,
                    )  # fmt: skip
        node.root = node
        held = {id(source): x, id(node): alike[name]}
        whole = {key: value.reshape(1, 1, *shape).astype(float) for key, value in held.items()}
        values = cast(Values, SimpleNamespace(
            overwritten=lambda *_: False, whole=lambda one, w=whole: w[id(one)],
        ))  # fmt: skip
        found = judge_plain.judge(cast(Node, node), values, 0)
        assert found is not None
        assert [one.text for one in found] == [""]


def test_another_buffer_where_one_was_is_another_buffer() -> None:
    """A second context's GPU memory at the address of the first one's host buffer was read as if
    it were the processor's: SIGSEGV on CUDA, for pairs whose attention the CPU computes."""
    here = {"name": b"CUDA_Host", "host": True}
    ggml = cast(Any, object.__new__(Ggml))
    ggml._buffer_name = lambda _: here["name"]
    ggml._is_host = lambda _: here["host"]
    assert ggml.buffer(4096) == ("CUDA_Host", True)
    here.update(name=b"CUDA0", host=False)
    assert ggml.buffer(4096) == ("CUDA0", False)
    assert ggml.buffer(None) == ("", False)
