"""Child side: the small operations around attention, each against float64 on its own inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from pytest_kvquant.engine.child.attention_inputs import choose
from pytest_kvquant.engine.child.finding import Corner, NodeFinding, length_class
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.numerics.arrays import F64, I64
from pytest_kvquant.numerics.attention import slopes, squares

LIMIT = 1e-9
"""NMSE of a row: a few roundings to f32, and sums of a row in f32."""

PRODUCT_LIMIT = {"f32": 1e-9, "f16": 2e-6, "bf16": 1e-4}
"""NMSE of a product of matrices, by the type of the left one: what the right one is rounded to.
All other types round it to 8 bits in blocks. GPUs multiply f32 as TF32, whose mantissa is that of
f16: 9.5e-8 was seen on an H100."""

EIGHT_BITS = 4e-4


def _norm(x: F64, node: Node) -> F64:
    epsilon = float(node.floats[0])
    return np.asarray(
        x / np.sqrt((np.einsum("...e,...e->...", x, x)[..., None] / x.shape[-1]) + epsilon)
    )


def _centred(x: F64, node: Node) -> F64:
    return _norm(x - x.mean(axis=-1, keepdims=True), node)


def _unit(x: F64, node: Node) -> F64:
    length = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
    return np.asarray(x / np.maximum(length, float(node.floats[0])))


def _scaled(x: F64, node: Node) -> F64:
    return np.asarray(x * float(node.floats[0]) + float(node.floats[1]))


def _clamped(x: F64, node: Node) -> F64:
    low, high = node.floats[:2]
    return np.asarray(np.clip(x, float(low), float(high)))


def _sigmoid(x: F64) -> F64:
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


FUNCTIONS: dict[str, Callable[[F64], F64]] = {
    "ABS": np.abs,
    "NEG": np.negative,
    "RELU": lambda x: np.asarray(np.maximum(x, 0.0)),
    "SIGMOID": _sigmoid,
    "SILU": lambda x: np.asarray(x * _sigmoid(x)),
    "SOFTPLUS": lambda x: np.asarray(np.logaddexp(0.0, x)),
    "TANH": np.tanh,
}
"""Of UNARY nodes, by ggml's names; those that libraries look up in tables of f16 are not here."""

FUNCTION_LIMITS = {"SOFTPLUS": 1e-6}
"""Logarithms of what is near one lose digits in f32: 6e-8 in all, a thousandth of 6e-5."""

ALONE: dict[str, Callable[[F64, Node], F64]] = {
    "RMS_NORM": _norm,
    "NORM": _centred,
    "L2_NORM": _unit,
    "SCALE": _scaled,
    "CLAMP": _clamped,
}
PAIRED: dict[str, Callable[[F64, F64], F64]] = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "DIV": np.divide,
}
MOVED = frozenset({"CONT", "CPY", "DUP", "PAD", "CONCAT", "REPEAT"})

UNDERSTOOD = frozenset({*ALONE, *PAIRED, *MOVED, "UNARY", "MUL_MAT", "SOFT_MAX"})


def judge(node: Node, values: Values, layer: int) -> list[NodeFinding] | None:
    """A node of one of the operations above; ``None`` where its form is not understood."""
    source = node.source(0)
    if source is None or {node.type, source.type} - {"f32", "f16"}:
        return None
    other = node.source(1) if node.op in PAIRED else None
    if other is not None and (_scales(node) or _scales(source)):
        return []  # the scale of a weight belongs to its projection, and so does a bias after it
    if any(values.overwritten(one, node) for one in (source, other) if one is not None):
        return None
    meant = _meant(node, source, values)
    if meant is None:
        return None
    if node.root is not node:
        values.release(node.root)  # computed in place: its result lies where its source was
    found = values.whole(node)
    if node.type == "f16":
        with np.errstate(over="ignore"):
            meant = meant.astype(np.float16).astype(np.float64)
    limit = FUNCTION_LIMITS.get(node.function, LIMIT) if node.op == "UNARY" else LIMIT
    return [_compared(node, found.reshape(meant.shape), meant, layer, limit, _kind(node))]


def _scales(node: Node) -> bool:
    """Whether it applies the scale of a weight."""
    scale = node.source(1) if node.op == "MUL" else None
    return scale is not None and scale.op == "NONE" and scale.name.endswith(".scale")


def _meant(node: Node, source: Node, values: Values) -> F64 | None:
    if node.op in PAIRED or node.op == "CONCAT":
        return _of_two(node, source, values)
    x, shape = values.whole(source), tuple(reversed(node.ne))
    if node.op == "PAD":
        return _padded(x, node)
    if node.op == "UNARY":
        function = FUNCTIONS.get(node.function)
        return None if function is None else np.asarray(function(x))
    if node.op == "REPEAT":
        return np.tile(x, [a // b for a, b in zip(shape, x.shape, strict=True)])
    return ALONE[node.op](x, node) if node.op in ALONE else x.reshape(shape)


def _of_two(node: Node, source: Node, values: Values) -> F64 | None:
    other = node.source(1)
    if other is None or other.type not in ("f32", "f16"):
        return None
    x, y = values.whole(source), values.whole(other)
    if node.op == "CONCAT":
        return np.concatenate((x, y), axis=3 - int(node.integers[0]))
    if any(b not in (1, a) for a, b in zip(x.shape, y.shape, strict=True)):
        y = np.tile(y, [a // b for a, b in zip(x.shape, y.shape, strict=True)])
    return PAIRED[node.op](x, y)


def _padded(x: F64, node: Node) -> F64 | None:
    """Zeros behind the values, or before them where the parameters say so."""
    shape = tuple(reversed(node.ne))
    before = [int(node.integers[2 * d]) for d in (3, 2, 1, 0)]
    if any(b + have > room for b, have, room in zip(before, x.shape, shape, strict=True)):
        before = [0, 0, 0, 0]
    meant = np.zeros(shape)
    meant[tuple(slice(b, b + n) for b, n in zip(before, x.shape, strict=True))] = x
    return meant


def judge_product(
    node: Node, values: Values, rng: np.random.Generator, layer: int, most: int
) -> list[NodeFinding] | None:
    """MUL_MAT of a cache and activations: some columns of some planes, in float64."""
    left, right = node.source(0), node.source(1)
    if left is None or right is None or right.type != "f32":
        return None
    found: NodeFinding | None = None
    sample = choose(rng, node.ne[2], node.ne[1], node.ne[3], most)
    for stream, plane in itertools.product(sample.streams, sample.heads):
        shared = plane // (node.ne[2] // left.ne[2]), stream // (node.ne[3] // left.ne[3])
        a = values.rows(left, *shared)
        b = values.rows(right, plane, stream, sample.rows)
        out = values.rows(node, plane, stream, sample.rows)
        kind = "f16" if left.type == "f32" and not node.on_cpu else left.type
        limit = PRODUCT_LIMIT.get(kind, EIGHT_BITS)
        one = _compared(node, out, b @ a.T, layer, limit, "product", sample.rows)
        found = one if found is None or not one.ratio <= found.ratio else found
    return [found._replace(corner=_of_product(node, left))] if found else None


def _of_product(node: Node, left: Node) -> Corner:
    """Under which conditions queries were multiplied by keys, or weights by values."""
    corner = Corner(
        "product", group=node.ne[2] // left.ne[2], tokens=node.ne[1], backend=node.backend
    )
    if "cache_v" in left.root.name:  # V is transposed: cells come first
        length = length_class(left.ne[0])
        return corner._replace(v_type=left.type, head_v=left.ne[1], length=length)
    length = length_class(left.ne[1])
    return corner._replace(k_type=left.type, head_k=left.ne[0], length=length)


def judge_softmax(
    node: Node, values: Values, rng: np.random.Generator, layer: int, most: int
) -> list[NodeFinding] | None:
    """SOFT_MAX with its mask, scale, ALiBi and sinks: some rows of some heads."""
    source, mask, sinks = (node.source(number) for number in range(3))
    if source is None:
        return None
    scale, bias = (float(one) for one in node.floats[:2])
    factors = slopes(node.ne[2], bias)
    found: NodeFinding | None = None
    sample = choose(rng, node.ne[2], node.ne[1], node.ne[3], most)
    for stream, head in itertools.product(sample.streams, sample.heads):
        score = scale * values.rows(source, head, stream, sample.rows)
        if mask is not None:
            hidden = values.rows(mask, 0, stream % mask.ne[3], sample.rows)
            score = score + factors[head] * hidden[:, : score.shape[1]]
        largest = score.max(axis=1, keepdims=True)
        extra = 0.0
        if sinks is not None:
            sink = values.rows(sinks)[0][head]
            largest = np.maximum(largest, sink)
            extra = np.exp(sink - largest)
        raised = np.exp(score - largest)
        meant = raised / (raised.sum(axis=1, keepdims=True) + extra)
        out = values.rows(node, head, stream, sample.rows)
        one = _compared(node, out, meant, layer, 1e-8, "softmax", sample.rows)
        found = one if found is None or not one.ratio <= found.ratio else found
    kinds = ["alibi" if bias else "causal", *(["sinks"] if sinks is not None else [])]
    corner = Corner(
        "softmax", tokens=node.ne[1], length=length_class(node.ne[0]), mask="+".join(kinds),
        backend=node.backend,
    )  # fmt: skip
    return [found._replace(corner=corner)] if found else None


def _kind(node: Node) -> str:
    return "norm" if node.op.endswith("NORM") else "plain"


def _compared(
    node: Node,
    found: F64,
    meant: F64,
    layer: int,
    limit: float,
    kind: str,
    which: I64 | None = None,
) -> NodeFinding:
    """NMSE of the worst row; what hides a cell from a query (-inf) must stand where it is meant.

    Args:
        which: numbers of the rows; ``None``: all of the node's.
    """
    found, meant = (rows.reshape(-1, rows.shape[-1]) for rows in (found, meant))
    if (hidden := meant == -np.inf).any():
        found = np.where(hidden, np.where(found == meant, 0.0, np.inf), found)
        meant = np.where(hidden, 0.0, meant)
    sizes = squares(meant)
    share = squares(found - meant) / np.maximum(sizes, max(float(sizes.mean()) * 1e-4, 1e-30))
    share[~np.isfinite(share)] = np.inf
    worst, at = float(share.max(initial=0)), int(share.argmax()) if share.size else 0
    corner = Corner(kind, head_k=node.ne[0], tokens=node.ne[1], backend=node.backend)
    text = ""
    if not worst <= limit:
        row = at if which is None else int(which[at])
        text = f"{node.op} {node.name} on {node.backend}: row {row}: NMSE {worst:.2g}"
    return NodeFinding(corner, node.name, layer, worst, limit, float(share.mean()), text)
