"""Chunks of simulated cells beside their emulated healthy cells, as varied as real ones or more.

What was measured on real chunks (``docs/healthy.md``): both figures of a chunk come from the same
tokens, so that KL of the cell scatters around its healthy one's by up to 8 %. Taken here: healthy
KL log-normal with 30 % between chunks and the cell's around it with 15 % (decode path: 60 % and
20 %); tail and flips with a design effect of 2 and 1.6 that both share, and beyond it as
independent as other tokens would be; flips of 0.3 to 7 % of tokens, by cell; ln PPL with a spread
of 0.4 limits.

A *level* is the share of the way from "as healthy" to the limit: 0.5 of a limit of 1.10 is 1.05,
twice it is 1.20.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pytest_kvquant.checks import healthy
from pytest_kvquant.checks.healthy import Allowance
from tools.error_rates.chunks import (
    DECODE_SPREAD,
    DECODED,
    F64,
    FLIP_EFFECT,
    KL_BUDGET,
    KL_SPREAD,
    LN_SPREAD,
    ONE_IN,
    TAIL_EFFECT,
    TOKENS,
    log_normal,
)

SCATTER, DECODE_SCATTER = 0.15, 0.2
"""Standard deviation of a chunk's ratio over the true one."""

FLIPS_FROM, FLIPS_TO = 0.003, 0.07
"""Share of tokens that a healthy cell's types flip, log-uniform between cells."""


class Beside(NamedTuple):
    """Figures per chunk of many cells and of their emulations, each ``(cells, chunks)``."""

    kl: F64
    kl_healthy: F64
    tail: F64
    tail_healthy: F64
    shift: F64
    """ln PPL minus the healthy cell's, nats."""
    flips: F64
    flips_healthy: F64
    decode: F64
    decode_healthy: F64
    """Of shape ``(cells, DECODED)``."""


def draw(
    rng: np.random.Generator, cells: int, chunks: int, level: float, *, concentrated: bool
) -> Beside:
    """Cells all of whose figures are at this level.

    Args:
        concentrated: the whole excess sits in one chunk of :data:`ONE_IN`; else it is in each, and
            half of the cells cost too little instead, where a gate has two sides.
    """
    side = np.where(concentrated, 1.0, rng.choice((-1.0, 1.0), (cells, 1)))

    def levels(count: int) -> F64:
        if not concentrated:
            return np.full((cells, count), level)
        return np.where(rng.random((cells, count)) < 1 / ONE_IN, ONE_IN * level, 0.0)

    def costing(base: F64, allowed: Allowance, scatter: float) -> F64:
        times = (1 + levels(base.shape[1]) * (allowed.limit - 1)) ** side
        return base * times * log_normal(rng, (cells, base.shape[1]), scatter)

    kl = KL_BUDGET * log_normal(rng, (cells, chunks), KL_SPREAD)
    decode = KL_BUDGET * log_normal(rng, (cells, DECODED), DECODE_SPREAD)
    tail, tail_healthy = _tails(rng, levels(chunks))
    flips, flips_healthy = _flips(rng, levels(chunks))
    move = healthy.SHIFT * np.sqrt(2 * KL_BUDGET)
    return Beside(
        kl=costing(kl, healthy.KL, SCATTER),
        kl_healthy=kl,
        tail=tail,
        tail_healthy=tail_healthy,
        shift=move * (side * levels(chunks) + LN_SPREAD * rng.standard_normal((cells, chunks))),
        flips=flips,
        flips_healthy=flips_healthy,
        decode=costing(decode, healthy.DECODE, DECODE_SCATTER),
        decode_healthy=decode,
    )


def _tails(rng: np.random.Generator, levels: F64) -> tuple[F64, F64]:
    """The bound is a quantile of the healthy tokens of the first look: their number is known."""
    p = _difficulty(rng, np.full(levels.shape, 1 - healthy.TAIL_QUANTILE), TAIL_EFFECT)
    theirs = rng.binomial(TOKENS, p)
    first = min(FIRST_LOOK, levels.shape[1])
    known = round((1 - healthy.TAIL_QUANTILE) * TOKENS * first)
    share = p[:, :first] / p[:, :first].sum(axis=1, keepdims=True)
    theirs[:, :first] = rng.multinomial(known, share)
    return _counted(rng, p, levels, healthy.TAIL), theirs / TOKENS


def _flips(rng: np.random.Generator, levels: F64) -> tuple[F64, F64]:
    edges = np.log([FLIPS_FROM, FLIPS_TO])
    typical = np.exp(rng.uniform(*edges, (len(levels), 1)))
    p = _difficulty(rng, np.broadcast_to(typical, levels.shape), FLIP_EFFECT)
    return _counted(rng, p, levels, healthy.FLIPS), rng.binomial(TOKENS, p) / TOKENS


FIRST_LOOK = 4


def _difficulty(rng: np.random.Generator, p: F64, effect: float) -> F64:
    """A chunk's own share, which cell and emulation have in common: beta."""
    concentration = (TOKENS - effect) / (effect - 1)
    found: F64 = rng.beta(p * concentration, (1 - p) * concentration)
    return np.maximum(found, 1e-12)


def _counted(rng: np.random.Generator, p: F64, levels: F64, allowed: Allowance) -> F64:
    """Shares of a cell at these levels of its limit, the floor on top of it included."""
    there = p * (1 + levels * (allowed.limit - 1)) + levels * allowed.floor
    shares: F64 = rng.binomial(TOKENS, np.minimum(there, 0.999)) / TOKENS
    return shares
