"""Child side: attention nodes against exact arithmetic on their own inputs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.child.finding import Corner, NodeFinding, length_class
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.numerics import attention

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FACTOR = 5.0
"""A row may be so many times as wrong as arithmetic models it."""

GAIN = 3e-3
"""A common relative change of one head's scores or values that counts as a fault."""

SURE = 6.0
"""A change must also be so many times what modelled noise would fit."""

SINGLE_UNIT = 2.0**-25
"""Half a spacing of f32, relative: one rounding."""

HALF_UNIT = 2.0**-12
"""The same of f16: on GPUs products of queries and keys are made in f16 or kept in it."""


class Sample(NamedTuple):
    """What is looked at in a node."""

    heads: list[int]
    rows: I64
    streams: list[int]


def choose(rng: np.random.Generator, heads: int, rows: int, streams: int, most: int) -> Sample:
    """First, last and one other head and stream; rows first, last, near multiples of 32, others."""
    edges = {0, rows - 1, rows // 2, *(edge + d for edge in (32, 256) for d in (-1, 0))}
    picked = {row for row in edges if 0 <= row < rows}
    while len(picked) < min(most, rows):
        picked.add(int(rng.integers(rows)))
    return Sample(
        sorted({0, heads - 1, int(rng.integers(heads))}),
        np.array(sorted(picked)[:: max(1, len(picked) // (2 * most))], np.int64),
        sorted({0, streams - 1}),
    )


class Parameters(NamedTuple):
    """What the operation says of itself; compared with the header elsewhere."""

    scale: float
    bias: float
    softcap: float


def parameters(node: Node) -> Parameters:
    """The parameters of FLASH_ATTN_EXT."""
    return Parameters(*(float(one) for one in node.floats[:3]))


class Inputs(NamedTuple):
    """The tensors of an attention node."""

    q: Node
    k: Node
    v: Node
    mask: Node | None
    sinks: Node | None

    @classmethod
    def of(cls, node: Node) -> Inputs:
        """Those of FLASH_ATTN_EXT."""
        found = [node.source(number) for number in range(5)]
        q, k, v = found[:3]
        assert q is not None
        assert k is not None
        assert v is not None
        return cls(q, k, v, found[3], found[4])


class Head(NamedTuple):
    """One head of one stream, ready to be judged and to be written to a file."""

    stream: int
    head: int
    rows: I64
    q: F64
    k: F64
    v: F64
    mask: F64
    out: F64
    how: attention.Scores


def heads_of(node: Node, values: Values, sample: Sample) -> list[Head]:
    """Inputs and outputs of the sampled heads."""
    inputs, how = Inputs.of(node), parameters(node)
    queries, heads = inputs.q.ne[1], inputs.q.ne[2]
    slopes = attention.slopes(heads, how.bias)
    sinks = None if inputs.sinks is None else values.rows(inputs.sinks)[0]
    found: list[Head] = []
    cached: dict[tuple[int, int, int], F64] = {}
    for stream in sample.streams:
        mask = _mask(inputs, values, sample.rows, stream)
        for head in sample.heads:
            at = [_shared(head, heads, side.ne[2]) for side in (inputs.k, inputs.v)]
            planes = []
            for side, place in zip((inputs.k, inputs.v), at, strict=True):
                key = (side.address, place, stream)
                if key not in cached:
                    cached[key] = values.rows(side, place, stream * side.ne[3] // inputs.q.ne[3])
                planes.append(cached[key])
            q = values.rows(inputs.q, head, stream, sample.rows)
            out = _out(node, head, stream, sample.rows, queries)
            sink = None if sinks is None else float(sinks[head])
            scores = attention.Scores(how.scale, how.softcap, float(slopes[head]), sink)
            k, v = planes
            found.append(Head(stream, head, sample.rows, q, k, v, mask, out, scores))
    return found


def judge(
    node: Node, values: Values, rng: np.random.Generator, layer: int, most: int
) -> list[NodeFinding]:
    """The worst sampled head of a FLASH_ATTN_EXT node."""
    inputs, how = Inputs.of(node), parameters(node)
    sample = choose(rng, inputs.q.ne[2], inputs.q.ne[1], inputs.q.ne[3], most)
    on_cpu = node.backend.startswith("CPU")
    worst: NodeFinding | None = None
    for head in heads_of(node, values, sample):
        found = _judge_head(head, node, inputs, how, layer, on_cpu=on_cpu)
        if worst is None or not found.ratio <= worst.ratio:
            worst = found
    return [worst] if worst is not None else []


def corner_of(node: Node, inputs: Inputs, how: Parameters, seen: int) -> Corner:
    """Under which conditions an attention node ran."""
    kinds = ["alibi" if how.bias else "causal"]
    kinds += ["sinks"] if inputs.sinks is not None else []
    kinds += ["softcap"] if how.softcap else []
    kinds += ["streams"] if inputs.q.ne[3] > 1 else []
    return Corner(
        "attention", inputs.k.type, inputs.v.type, inputs.k.ne[0], inputs.v.ne[0],
        inputs.q.ne[2] // inputs.k.ne[2], inputs.q.ne[1], length_class(seen), "+".join(kinds),
        node.backend,
    )  # fmt: skip


def _judge_head(
    head: Head, node: Node, inputs: Inputs, how: Parameters, layer: int, *, on_cpu: bool
) -> NodeFinding:
    best: tuple[float, attention.Misfit] | None = None
    for taken in roundings(head.q, head.k, inputs.k.type, on_cpu=on_cpu):
        meant = attention.attend(taken.q, taken.k, head.v, head.mask, head.how)
        noise = noise_of(meant, head, inputs.v.type, on_cpu=on_cpu)
        found = attention.misfit(head.out, meant)
        ratio = _ratio(found, head, meant, noise)
        if ratio > 1 and taken.in_eights:
            ratio = _ratio(found, head, meant, noise + _one_step(taken, head))
        if best is None or ratio < best[0]:
            best = (ratio, found)
        if ratio <= 1:
            break
    assert best is not None
    ratio, found = best
    seen = int((head.mask > -np.inf).sum(axis=1).max(initial=0))
    corner = corner_of(node, inputs, how, seen)
    text = _words(corner, head, found, seen) if not ratio <= 1 else ""
    return NodeFinding(corner, node.name, layer, ratio, 1.0, found.error, text)


def _ratio(found: attention.Misfit, head: Head, meant: attention.Attended, noise: F64) -> float:
    """The largest of three figures over their limits: a row, and both common changes."""
    if not np.isfinite(found.error):
        return float("inf")
    wrong = np.square(head.out - meant.out).sum(axis=1)
    ratios = [float((wrong / (FACTOR * noise)).max())]
    elements = head.out.size
    for gain, direction in ((found.by_score, meant.by_score), (found.by_value, meant.out)):
        size = float(np.square(direction).sum())
        spread = np.sqrt(float(noise.sum()) / elements / size) if size else np.inf
        if SURE * spread < GAIN:
            ratios.append(abs(gain) / GAIN)
    return max(ratios)


class Taken(NamedTuple):
    """Queries and keys as a kernel takes them."""

    q: F64
    k: F64
    in_eights: bool = False
    """Whether queries are rounded to 8 bits."""


def roundings(q: F64, k: F64, k_type: str, *, on_cpu: bool) -> list[Taken]:
    """What kernels may make of the queries before they meet the keys, the likeliest first.

    On a CPU f16 keys meet f16 queries, q-types 8-bit ones; on GPUs f16 or f32 as the kernel's
    family has it, and blocks of 8 bits (q8_1) for q-types and few queries.
    """
    exact, halves = Taken(q, k), Taken(q.astype(np.float16).astype(np.float64), k)
    if k_type in ("f32", "f16"):
        return [exact, halves] if k_type == "f32" or not on_cpu else [halves, exact]
    if k_type == "bf16":
        return [Taken(_brain(q), k), exact, halves]
    eights = [
        Taken(attention.rounded_to_eights(q, scale_in_half=half), k, in_eights=True)
        for half in (True, False)
    ]
    if not on_cpu:
        return [halves, *reversed(eights), exact]
    if k_type.endswith("_1"):
        eights.insert(0, Taken(*attention.with_offsets(q, k), in_eights=True))
    return [*eights, exact, halves]


def _one_step(taken: Taken, head: Head) -> F64:
    """What it costs at most if one element of a query is rounded one step otherwise.

    That happens where it lies in the middle between two steps, and another order of the same
    arithmetic decides.
    """
    blocks = np.abs(head.q).reshape(len(head.q), -1, 32 if head.q.shape[1] % 32 == 0 else 1)
    steps = np.repeat(blocks.max(axis=2) / 127, blocks.shape[2], axis=1)
    worst = np.zeros(len(head.q))
    for row, step in enumerate(steps):
        seen = np.flatnonzero(head.mask[row] > -np.inf)
        keys = head.k[seen]
        query, mask = taken.q[row : row + 1], head.mask[row : row + 1, seen]
        one = attention.attend(query, taken.k[seen], np.eye(len(seen)), mask, head.how)
        weights = one.out[0]
        moved = head.how.scale * step[:, None] * keys.T
        moved = weights * (moved - (moved @ weights)[:, None])
        worst[row] = np.square(moved @ head.v[seen]).sum(axis=1).max(initial=0)
    return worst * (2 / FACTOR)


def _brain(q: F64) -> F64:
    bits = q.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.asarray(rounded.astype(np.uint32).view(np.float32), np.float64)


def noise_of(meant: attention.Attended, head: Head, v_type: str, *, on_cpu: bool) -> F64:
    """Squared error that arithmetic models for each row.

    A CPU sums f16 values in f16, all others in f32. On GPUs the family of the kernel decides, and
    scores, weights and unpacked rows are f16.
    """
    size = np.linalg.norm(head.q, axis=1) * float(np.linalg.norm(head.k, axis=1).max(initial=0))
    largest = np.abs(head.how.scale) * size
    unit = SINGLE_UNIT if on_cpu else HALF_UNIT
    # a sum of d products, rounded d times to its own size
    per_score = unit * (np.sqrt(head.q.shape[1]) * largest if on_cpu else np.maximum(1.0, largest))
    moved = np.square(meant.by_score).sum(axis=1) + np.square(meant.out).sum(axis=1) * 1e-2
    by_scores = np.square(np.minimum(per_score, 1.0) + 8 * SINGLE_UNIT) * moved
    if on_cpu and v_type != "f16":
        return np.asarray(meant.singles + by_scores) + 1e-30
    return np.asarray(meant.halves + meant.weights_in_half + by_scores) + 1e-30


def _mask(inputs: Inputs, values: Values, rows: I64, stream: int) -> F64:
    cells = inputs.k.ne[1]
    if inputs.mask is None:
        return np.zeros((len(rows), cells))
    at = stream % inputs.mask.ne[3]
    return values.rows(inputs.mask, 0, at, rows)[:, :cells]


def _out(node: Node, head: int, stream: int, rows: I64, queries: int) -> F64:
    """Rows of one head of the output, whose shape is (value size, heads, queries, streams)."""
    size = node.ne[0] * 4
    memory = node.bytes()
    start = stream * node.nb[3] + head * node.nb[1]
    view = np.lib.stride_tricks.as_strided(
        memory[start:], (queries, size), (node.nb[2], 1), writeable=False
    )
    return np.ascontiguousarray(view[rows]).view(np.float32).astype(np.float64)


def _shared(head: int, heads: int, kv_heads: int) -> int:
    return head // (heads // kv_heads)


def _words(corner: Corner, head: Head, found: attention.Misfit, seen: int) -> str:
    row = int(head.rows[found.row])
    parts = [
        f"attention {corner.k_type}/{corner.v_type}, head size {corner.head_k}/{corner.head_v}, "
        f"{corner.group} query heads per KV head, {corner.tokens} query tokens, {seen} cells seen, "
        f"{corner.mask}, on {corner.backend}: head {head.head}",
    ]
    if head.stream:
        parts.append(f"stream {head.stream}")
    if not np.isfinite(found.error):
        return ", ".join([*parts, f"query {row} is not finite"])
    figures = f"NMSE {found.error:.2g}, query {row} {found.worst:.2g}"
    if abs(found.by_score) > GAIN or abs(found.by_value) > GAIN:
        figures += f"; scores off by {found.by_score:+.2%}, values by {found.by_value:+.2%}"
    return ", ".join([*parts, figures])
