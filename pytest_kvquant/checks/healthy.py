"""Kernel right? A cell's figures over those of its emulated healthy cell, gate by gate.

No budget is needed on any model: what the types' rounding costs there is measured beside. Each
gate stands beside the absolute one of the same figure, which answers the other question, whether
the pair is fit to use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from pytest_kvquant.checks.ln_ppl_ratio import judge_ln_ppl
from pytest_kvquant.numerics import ratio
from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.evidence import ChunkFigures, Evidence
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.gate import Gate

TAIL_QUANTILE = 0.98
"""Of the healthy cell's KL per token: what lies beyond counts for the tail."""

SHIFT = 0.1
"""ln PPL may move from the healthy cell's by this share of √(2·KL), the root mean square by which
a log-likelihood moves at that KL."""

FLOORS = 1.0
"""Noise floors that a KL may be away without a fault."""


NEAR = 1.4
"""Ratios under which further emulations may show that it is chance: beyond, their limit of at most
1.30 is not reached."""


NOT_JUDGED = "Not judged"
"""How the rule of a gate begins that had nothing to be held against."""


class Allowance(NamedTuple):
    """How far from its healthy figure a gate lets a cell be."""

    limit: float
    """A fault is called beyond this ratio."""
    widest: float
    """No ratio passes whose interval reaches beyond this."""
    floor: float
    """What may come on top, in the figure's unit: noise that no rounding explains."""
    two_sided: bool


KL = Allowance(ratio.LIMIT, ratio.WIDEST, 0.0, two_sided=True)
DECODE = Allowance(1.15, 1.5, 0.0, two_sided=True)
"""Few tokens."""
TAIL = Allowance(1.3, 2.0, 0.004, two_sided=False)
FLIPS = Allowance(1.3, 2.0, 0.004, two_sided=False)
"""Few tokens count: one in 256 more or less is chance."""


def judge_kernel(
    measured: Evidence,
    healthy: Evidence,
    rules: Rules,
    noise: float,
    draws: Sequence[Evidence] = (),
) -> tuple[Gate, ...]:
    """The gates of the prefill path, on the chunks that both have.

    Args:
        noise: KL that f16 shows against itself on this machine, nats.
        draws: further emulations, by roundings that are as likely: mean KL is held against the
            mean of them all, and may be as far from it as they are from each other.
    """
    count = min(one.complete for one in (measured, healthy, *draws))
    if not count:
        return ()
    ours, theirs = (_first(one.per_chunk(), count) for one in (measured, healthy))
    over = tail_bound(healthy, rules)
    drawn = [_first(one.per_chunk(), count).kl for one in draws]
    shift = judge_ln_ppl(ours.ln_ppl - theirs.ln_ppl, shift_limits(theirs.kl, noise), rules)
    return (
        kl_gate(ours.kl, theirs.kl, rules, noise, drawn),
        ratio_gate(
            "kl_tail_ratio",
            share_over(measured, over, count),
            share_over(healthy, over, count),
            rules,
            TAIL,
        ),
        _of_kernel(shift, "ln_ppl_shift", ours.ln_ppl, theirs.ln_ppl),
        ratio_gate("top1_flips_ratio", ours.flips, theirs.flips, rules, FLIPS),
    )


def kl_gate(
    measured: F64, healthy: F64, rules: Rules, noise: float, draws: Sequence[F64] = ()
) -> Gate:
    """Mean KL over the healthy cell's.

    Args:
        measured, healthy: per chunk, nats, shape ``(n,)`` each, the same chunks.
        noise, draws: see :func:`judge_kernel`.
    """
    allowed, every = KL._replace(floor=FLOORS * noise), np.array([healthy, *draws])
    if draws:
        allowed = allowed._replace(limit=ratio.drawn_limit(every.mean(axis=1)))
    return ratio_gate("kl_ratio", measured, every.mean(axis=0), rules, allowed)


def off_by_little(gates: Iterable[Gate]) -> bool:
    """Whether the mean KL fails by so little that chance in the rounding may be it."""
    found = next((one for one in gates if one.name == "kl_ratio"), None)
    if found is None or found.verdict != "fail":
        return False
    return 1 / NEAR < found.figure < NEAR


def judge_decode(
    measured: Evidence, healthy: Evidence, noise: float, looks: tuple[int, ...]
) -> Gate:
    """The gate of the decode path, on the chunks that both have.

    Args:
        looks: chunks after which it is judged, ascending; as many as were measured is one of them.
    """
    count = min(measured.complete, healthy.complete)
    rules = Rules(cap=count, looks=looks)
    ours, theirs = (_first(one.per_chunk(), count) for one in (measured, healthy))
    allowance = DECODE._replace(floor=FLOORS * noise)
    return ratio_gate("decode_kl_ratio", ours.kl, theirs.kl, rules, allowance)


def ratio_gate(name: str, measured: F64, healthy: F64, rules: Rules, allowed: Allowance) -> Gate:
    """One figure of a cell over that of its healthy emulation.

    Args:
        measured, healthy: per chunk, shape ``(n,)`` each, the same chunks.
    """
    found = ratio.judge(
        measured,
        healthy,
        looks=rules.schedule,
        level=rules.level,
        planned=rules.looks_planned,
        floor=allowed.floor,
        limit=allowed.limit,
        widest=allowed.widest,
        two_sided=allowed.two_sided,
    )
    seen = found.decided_at or len(measured)
    return Gate(
        name=name,
        verdict=found.verdict,
        figure=found.figure,
        low=found.low if math.isfinite(found.low) else None,
        high=found.high if math.isfinite(found.high) else None,
        budget=found.limit if found.verdict == "pass" else allowed.limit,
        unit="ratio",
        chunks=found.chunks,
        e_value=None,
        p_value=found.p_value,
        alpha=rules.alpha,
        level=rules.level,
        decided_at=found.decided_at,
        census=False,
        chunks_needed=None,
        rule=_rule(allowed, rules),
        question="kernel",
        measured=float(np.mean(measured[:seen])),
        healthy=float(np.mean(healthy[:seen])),
    )


def without_emulation(name: str, measured: F64, rules: Rules, problem: str | None) -> Gate:
    """The gate of a ratio where the healthy cell could not be emulated: open, and why."""
    return Gate(
        name=name,
        verdict="inconclusive",
        figure=1.0,
        low=None,
        high=None,
        budget=ratio.LIMIT,
        unit="ratio",
        chunks=len(measured),
        e_value=None,
        p_value=1.0,
        alpha=rules.alpha,
        level=rules.level,
        decided_at=None,
        census=False,
        chunks_needed=None,
        rule=f"{NOT_JUDGED}, no healthy cell could be emulated: "
        f"{problem or 'it was not asked for'}",
        question="kernel",
        measured=float(np.mean(measured)) if len(measured) else None,
    )


def tail_bound(healthy: Evidence, rules: Rules) -> float:
    """Nats beyond which a token counts for the tail: a quantile of the first look's tokens.

    From the emulation alone, and from chunks that every later look has too: it does not move.
    """
    first = min(rules.schedule[0], healthy.complete)
    return float(np.quantile(healthy.columns.kl[:first], TAIL_QUANTILE))


def shift_limits(healthy: F64, noise: float) -> F64:
    """How far ln PPL may move from the healthy cell's, nats, by what n chunks of it have shown.

    Args:
        healthy: mean KL of the emulated cell's chunks, nats, shape ``(…, n)``.

    Returns:
        The same shape: that of the first chunk alone, of the first two, …
    """
    so_far = np.cumsum(healthy, axis=-1) / np.arange(1, healthy.shape[-1] + 1)
    limits: F64 = SHIFT * np.sqrt(2 * np.maximum(so_far, max(noise, 1e-12)))
    return limits


def share_over(evidence: Evidence, bound: float, chunks: int) -> F64:
    """Share of each chunk's tokens with a KL beyond a bound, shape ``(chunks,)``."""
    shares: F64 = (evidence.columns.kl[:chunks] > bound).mean(axis=1)
    return shares


def _first(figures: ChunkFigures, count: int) -> ChunkFigures:
    return ChunkFigures._make(column[:count] for column in figures)


def _of_kernel(gate: Gate, name: str, ours: F64, theirs: F64) -> Gate:
    seen = gate.decided_at or len(ours)
    return replace(
        gate,
        name=name,
        question="kernel",
        measured=float(ours[:seen].mean()),
        healthy=float(theirs[:seen].mean()),
        rule=gate.rule.replace("The ln PPL ratio", "The shift of ln PPL from the healthy cell's"),
    )


def _rule(allowed: Allowance, rules: Rules) -> str:
    looks = ", ".join(map(str, rules.schedule))
    sides = "outside 1/{0:g} to {0:g}" if allowed.two_sided else "over {0:g}"
    return (
        f"Fails when the ratio's Fieller interval lies {sides.format(allowed.limit)}, passes "
        f"inside what its width permits (at most {allowed.widest:g}), at {looks} chunks."
    )
