"""Child side: ropes and rotations against exact arithmetic.

A rope's positions come from the mirror and its parameters from the model's header where they are
known; of the graph only the values are taken.
"""

from __future__ import annotations

import numpy as np

from pytest_kvquant.engine.child.facts import RopeFields
from pytest_kvquant.engine.child.finding import Corner, NodeFinding, length_class
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.numerics.arrays import F64, I64
from pytest_kvquant.numerics.rope import MROPE, Rope, turn

LIMIT = 1e-8
"""NMSE of a rope: sine and cosine of an angle in f32, whose own rounding grows with the position
(2⁻²⁴ of 10⁵ is 0.006 of a radian for the fastest pair)."""

LIMITS = {"f16": 1e-6, "bf16": 1e-4}
"""The same of results that are rounded to 16 bits."""

ANGLE = 2.0**-24
"""Relative error of an angle kept in f32."""

ROTATION_LIMIT = 1e-9
"""NMSE of an orthonormal rotation with sums in f32."""


def rope_of(node: Node) -> Rope:
    """The parameters that a ROPE node carries."""
    whole, real = node.integers, node.floats
    return Rope(
        int(whole[1]), int(whole[2]), float(real[5]), float(real[6]), int(whole[4]),
        float(real[7]), float(real[8]), float(real[9]), float(real[10]),
        tuple(int(one) for one in whole[11:15]), int(whole[15]),
    )  # fmt: skip


def judge(
    node: Node,
    values: Values,
    layer: int,
    positions: I64 | None,
    known: RopeFields | None,
    rows: I64,
) -> list[NodeFinding]:
    """A ROPE node.

    Args:
        positions: what they should be, per token; ``None``: not known, the graph's are taken.
        known: fields of :class:`Rope` by the model's header.
        rows: tokens to look at.
    """
    source, places, factors = (node.source(number) for number in range(3))
    assert source is not None
    assert places is not None
    rope = rope_of(node)
    given = values.plane(places)[0].view(np.int32).astype(np.int64)
    sections = given.reshape(4, -1) if rope.mode & MROPE else given[None]
    corner = Corner("rope", head_k=node.ne[0], tokens=node.ne[2], backend=node.backend)
    found = []
    if known and (wrong := _differing(rope, known, factors is not None)):
        text = f"rope of {node.name} on {node.backend}: {wrong}"
        found.append(
            NodeFinding(corner._replace(operation="parameters"), node.name, layer, 2, 1, 0, text)
        )
        rope = _by_header(rope, known)
    if positions is not None and len(positions) == sections.shape[1]:
        if (at := np.flatnonzero(sections[0] != positions)).size:
            text = (
                f"positions of {node.name}: token {at[0]} is at {positions[at[0]]} and the graph "
                f"says {sections[0][at[0]]}"
            )
            wrong_place = corner._replace(operation="parameters")
            found.append(NodeFinding(wrong_place, node.name, layer, 2, 1, 0, text))
        fixed = sections.copy()
        fixed[: 3 if len(fixed) > 1 else 1] = positions
        sections = fixed
    divisors = None if factors is None else values.rows(factors)[0]
    return [*found, _compare(node, source, values, rope, sections, divisors, rows, corner, layer)]


def _compare(
    node: Node,
    source: Node,
    values: Values,
    rope: Rope,
    sections: I64,
    divisors: F64 | None,
    rows: I64,
    corner: Corner,
    layer: int,
) -> NodeFinding:
    before = values.planes(source, rows.tolist())
    values.release(node.root)  # turned in place: its result lies where its source was
    after = values.planes(node, rows.tolist())
    places = sections[:, rows].astype(np.float64)
    meant = turn(before, rope, places if len(places) > 1 else places[0], divisors)
    error, worst, head = _worst(after, meant)
    limit = LIMITS.get(node.type, LIMIT) + (4 * ANGLE * float(np.abs(places).max(initial=0))) ** 2
    text = ""
    if not worst <= limit:
        row = int(rows[head[0]])
        text = (
            f"rope of {node.name}, head size {node.ne[0]}, {node.ne[2]} tokens, on {node.backend}: "
            f"token {row} at position {int(sections[0][row])}, head {head[1]}: NMSE {worst:.2g}"
        )
    return NodeFinding(corner, node.name, layer, worst, limit, error, text)


def _worst(values: F64, meant: F64) -> tuple[float, float, tuple[int, int]]:
    """Mean and largest NMSE over the last dimension, and where it is largest."""
    error = np.square(values - meant).sum(axis=-1)
    size = np.square(meant).sum(axis=-1)
    share = error / np.maximum(size, max(float(size.mean()) * 1e-6, 1e-30))
    share[~np.isfinite(share)] = np.inf
    flat = int(share.argmax())
    at = np.unravel_index(flat, share.shape)
    return float(share.mean()), float(share.max()), (int(at[0]), int(at[-1]))


def _by_header(rope: Rope, known: RopeFields) -> Rope:
    def number(name: str, default: float) -> float:
        value = known.get(name, default)
        return value if isinstance(value, (int, float)) else default

    sections = known.get("sections", rope.sections)
    return Rope(
        int(number("dims", rope.dims)),
        int(number("mode", rope.mode)),
        number("base", rope.base),
        number("scale", rope.scale),
        int(number("trained", rope.trained)),
        number("ext", rope.ext),
        number("attention", rope.attention),
        number("beta_fast", rope.beta_fast),
        number("beta_slow", rope.beta_slow),
        rope.sections if isinstance(sections, (int, float)) else tuple(sections),
        rope.start,
    )


def _differing(rope: Rope, known: RopeFields, factors: bool) -> str:
    """What the header says otherwise, in words.

    Args:
        factors: whether the graph hands over divisors of the frequencies.
    """
    for name, meant in known.items():
        if name == "factors":
            if bool(meant) != factors:
                return ("it has no" if meant else "it has") + (
                    f" rope factors, and the model's file has {'them' if meant else 'none for it'}"
                )
            continue
        found = getattr(rope, name)
        if found != meant and not np.allclose(found, meant, rtol=1e-5):
            return f"its {name} is {found}, by the model's header {meant}"
    return ""


def judge_rotation(
    node: Node, values: Values, layer: int, matrix: F64, rows: I64
) -> list[NodeFinding]:
    """A rotation of groups of elements by a known orthonormal matrix.

    Args:
        matrix: row vectors times this is what should come out.
        rows: which rows of the node, over all its planes.
    """
    source = node.source(1 if node.op == "MUL_MAT" else 0)
    assert source is not None
    size = len(matrix)
    before, after = (_picked(one, values, rows) for one in (source, node))
    grouped = before.reshape(len(before), -1, size)
    meant = grouped @ matrix
    error, worst, at = _worst(after.reshape(meant.shape), meant)
    corner = Corner("rotation", head_k=size, tokens=length_class(node.ne[1]), backend=node.backend)
    text = ""
    if not worst <= ROTATION_LIMIT:
        text = (
            f"rotation {node.op} {node.name} of {size} elements, on {node.backend}: row "
            f"{int(rows[at[0]])}: NMSE {worst:.2g}"
        )
    return [NodeFinding(corner, node.name, layer, worst, ROTATION_LIMIT, error, text)]


def _picked(node: Node, values: Values, rows: I64) -> F64:
    whole = values.whole(node).reshape(-1, node.ne[0])
    return np.ascontiguousarray(whole[rows])
