"""Child side: attention nodes against exact arithmetic on their own inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from pytest_kvquant.engine.child.attention_inputs import (
    Head,
    Inputs,
    Operands,
    Parameters,
    choose,
    heads_of,
    parameters,
)
from pytest_kvquant.engine.child.attention_noise import (
    FACTOR,
    Taken,
    Types,
    adds_in_half,
    by_products,
    noise_of,
    roundings,
)
from pytest_kvquant.engine.child.finding import Corner, NodeFinding, length_class
from pytest_kvquant.engine.child.nodes import Node
from pytest_kvquant.engine.child.query_ties import settled
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.numerics import attention
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.half_sums import attend_in_halves

GAIN = 3e-3
"""A common relative change of one head's scores or values that counts as a fault."""

DEVICE_GAIN = 4.5e-3
"""The same on other devices, whose sums are not modelled: an H100 shows up to 3.1e-3 in 8 tokens of
turbo2 and turbo4 keys over 8 cells."""

SPLIT = 512
"""Cells from which on one query is computed in stretches, one a thread."""

MOST_PARTS = 8
"""Threads that are tried for it."""

STEPS_NOISE = 0.05
"""Share of the roundings to f16 that may fall otherwise, in an emulation of the kernel's steps."""

SURE = 6.0
"""A change must also be so many times what modelled noise would fit."""


def judge(
    node: Node,
    values: Values,
    rng: np.random.Generator,
    layer: int,
    most: int,
    *,
    windowed: bool = False,
) -> list[NodeFinding]:
    """The worst sampled head of a FLASH_ATTN_EXT node.

    Args:
        most: rows that are looked at, about.
        windowed: whether the layer has a window.
    """
    inputs, how = Inputs.of(node), parameters(node)
    sample = choose(rng, inputs.q.ne[2], inputs.q.ne[1], inputs.q.ne[3], most)
    types, on_cpu = Types(inputs.k.type, inputs.v.type, adds_in_half()), node.on_cpu
    found: list[NodeFinding] = []
    for heads in heads_of(node, values, sample, whole=False):
        ratios, misfit, _ = _nearest(heads.given, types, on_cpu=on_cpu)
        at = int(ratios.argmax())
        if not ratios[at] <= 1:  # how a kernel splits its work may matter, and all cells with it
            each = [one for some in heads_of(node, values, sample) for one in some.each]
            return [_worst(each, node, inputs, how, layer, windowed=windowed)]
        corner = corner_of(node, inputs, how, heads.given.mask, windowed=windowed)
        figures = float(ratios[at]), 1.0, float(misfit.error[at])
        found.append(NodeFinding(corner, node.name, layer, *figures))
    return [max(found, key=lambda one: one.figure)] if found else []


def corner_of(node: Node, inputs: Inputs, how: Parameters, mask: F64, *, windowed: bool) -> Corner:
    """Under which conditions an attention node ran."""
    kinds = ["alibi" if how.bias else "window" if windowed else "causal"]
    kinds += ["sinks"] if inputs.sinks is not None else []
    kinds += ["softcap"] if how.softcap else []
    kinds += ["streams"] if inputs.q.ne[3] > 1 else []
    return Corner(
        "attention", inputs.k.type, inputs.v.type, inputs.k.ne[0], inputs.v.ne[0],
        inputs.q.ne[2] // inputs.k.ne[2], inputs.q.ne[1], length_class(_seen(mask)),
        "+".join(kinds), node.backend,
    )  # fmt: skip


def _seen(mask: F64) -> int:
    """The most cells that a query sees."""
    return int((mask > -np.inf).sum(axis=1).max(initial=0))


def _worst(
    heads: Sequence[Head],
    node: Node,
    inputs: Inputs,
    how: Parameters,
    layer: int,
    *,
    windowed: bool,
) -> NodeFinding:
    """The worst of some heads, each of which is asked for ties and for the kernel's own steps."""
    types, on_cpu = Types(inputs.k.type, inputs.v.type, adds_in_half()), node.on_cpu
    judged = [(head, *against_arithmetic(head.given, types, on_cpu=on_cpu)) for head in heads]
    head, ratio, misfit = max(judged, key=lambda one: one[1])
    corner = corner_of(node, inputs, how, head.given.mask, windowed=windowed)
    text = _words(corner, head, misfit) if ratio > 1 else ""
    return NodeFinding(corner, node.name, layer, ratio, 1.0, float(misfit.error), text)


def against_arithmetic(
    given: Operands, types: Types, *, on_cpu: bool
) -> tuple[float, attention.Misfit]:
    """The largest figure of a head over its limit, and how its output differs.

    Of all ways in which kernels round, the one counts that is nearest to the output.
    """
    ratios, found, tried = _nearest(given, types, on_cpu=on_cpu)
    ratio = float(ratios)
    if ratio > 1:  # perhaps a tie was rounded otherwise
        for taken, _ in tried:
            if (other := settled(taken, given)) is not None:
                meant = attention.attend(other.q, other.k, given.v, given.mask, given.how)
                misfit = attention.misfit(given.out, meant)
                noise = noise_of(meant, given, types, on_cpu=on_cpu)
                if (one := float(_ratio(misfit, given, meant, noise))) < ratio:
                    ratio, found = one, misfit
    if ratio > 1 and types.v == "f16":
        ratio, found = min((ratio, found), *_in_halves(given, *tried[0]), key=lambda one: one[0])
    return ratio, found


def _nearest(
    given: Operands, types: Types, *, on_cpu: bool
) -> tuple[F64, attention.Misfit, list[tuple[Taken, attention.Attended]]]:
    """Figures over their limits with the queries rounded in the way that comes nearest, and the
    ways that were tried: until all heads are right."""
    ratio: F64 | None = None
    tried: list[tuple[Taken, attention.Attended]] = []
    products = by_products(given, types, on_cpu=on_cpu)
    for taken in roundings(given, types.k, on_cpu=on_cpu):
        meant = attention.attend(taken.q, taken.k, given.v, given.mask, given.how)
        tried.append((taken, meant))
        misfit = attention.misfit(given.out, meant)
        gain = np.maximum(GAIN if on_cpu else DEVICE_GAIN, attention.gain_of(products, meant))
        noise = noise_of(meant, given, types, on_cpu=on_cpu) + products
        one = _ratio(misfit, given, meant, noise, gain)
        if ratio is None:
            ratio, found = one, misfit
        else:
            nearer = (ratio > 1) & (one < ratio)
            ratio = np.where(nearer, one, ratio)
            found = attention.Misfit._make(map(partial(np.where, nearer), misfit, found))
        if (ratio <= 1).all():
            break
    assert ratio is not None
    return ratio, found, tried


def _in_halves(
    given: Operands, taken: Taken, meant: attention.Attended
) -> list[tuple[float, attention.Misfit]]:
    """Against the kernel's own sums in f16: of all cells, and of stretches of a thread each."""
    split = len(given.q) == 1 and len(given.k) >= SPLIT
    found = []
    for parts in range(1, MOST_PARTS + 1) if split else (1,):
        out = attend_in_halves(taken.q, taken.k, given.v, given.mask, given.how, parts=parts)
        steps = meant._replace(out=out)
        misfit = attention.misfit(given.out, steps)
        ratio = _ratio(misfit, given, steps, STEPS_NOISE * meant.halves + 1e-30)
        found.append((float(ratio), misfit))
        if found[-1][0] <= 1:
            break
    return found


def _ratio(
    found: attention.Misfit,
    given: Operands,
    meant: attention.Attended,
    noise: F64,
    most: F64 | float = GAIN,
) -> F64:
    """The largest of three figures over their limits: a row, and both common changes.

    Args:
        most: common relative change that is allowed.
    """
    with np.errstate(invalid="ignore"):
        wrong = np.square(given.out - meant.out).sum(axis=-1)
        ratio = (wrong / (FACTOR * noise)).max(axis=-1)
        scale = noise.sum(axis=-1) / (given.out.shape[-2] * given.out.shape[-1])
        for gain, spread in zip(
            (found.by_score, found.by_value), attention.spreads(meant), strict=True
        ):
            told = SURE * spread * np.sqrt(scale) < GAIN
            ratio = np.where(told, np.maximum(ratio, np.abs(gain) / most), ratio)
    return np.where(np.isfinite(found.error) & ~np.isnan(ratio), ratio, np.inf)


def _words(corner: Corner, head: Head, found: attention.Misfit) -> str:
    row, seen = int(head.rows[found.row]), _seen(head.given.mask)
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
