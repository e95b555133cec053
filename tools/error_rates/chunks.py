"""Chunks of simulated cells, as varied as real ones or a little more.

What was measured on real chunks (``docs/statistics.md``): mean KL varies by 8 to 15 % of itself
between chunks with a skewness of up to 1.4; flips have a design effect of up to 1.6, the tail of up
to 1.7; the ln PPL ratio is nearly symmetric. Taken here: log-normal KL with 30 %, beta-binomial
shares with design effects of 1.6 and 2, a normal ln PPL ratio with a spread of 0.4 budgets (real:
0.14 to 0.21), and 16 decoded tokens in each of 8 chunks, log-normal with 60 %.

Figures of one chunk are independent of each other and of other cells': the hardest case for a
correction among many.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

TOKENS = 255
"""Scored tokens per chunk."""

DECODED = 8
"""Chunks of the decode path."""

ONE_IN = 32
"""A concentrated fault sits in one chunk of so many, at random."""

HEALTHY = 0.3
"""What the other chunks of such a cell show, in budgets."""


class Cells(NamedTuple):
    """Figures per chunk of many cells, each of shape ``(cells, chunks)``, and their budgets."""

    kl: F64
    tail: F64
    ln_ppl: F64
    flips: F64
    decode: F64
    """Of shape ``(cells, DECODED)``."""


KL_BUDGET, TAIL_BUDGET, LN_BUDGET, FLIP_BUDGET = 0.02, 0.0125, 0.03, 0.02

LN_SPREAD = 0.4
"""Standard deviation of a chunk's ln PPL ratio over its budget."""

KL_SPREAD, DECODE_SPREAD = 0.3, 0.6
"""Standard deviation of a chunk's KL over its mean."""

TAIL_EFFECT, FLIP_EFFECT = 2.0, 1.6
"""Variance of a chunk's share over that of as many independent tokens."""


def draw(
    rng: np.random.Generator, cells: int, chunks: int, level: float, *, concentrated: bool
) -> Cells:
    """Cells whose true figures are all ``level`` budgets.

    Args:
        concentrated: the excess over :data:`HEALTHY` sits in one chunk of :data:`ONE_IN`.
    """

    def means(count: int) -> F64:
        """The true figure of each chunk, in budgets."""
        if not concentrated:
            return np.full((cells, count), level)
        struck = rng.random((cells, count)) < 1 / ONE_IN
        there = ONE_IN * (level - HEALTHY * (1 - 1 / ONE_IN))
        return np.where(struck, there, HEALTHY)

    sign = rng.choice((-1.0, 1.0), (cells, 1))
    return Cells(
        kl=KL_BUDGET * means(chunks) * log_normal(rng, (cells, chunks), KL_SPREAD),
        tail=_shares(rng, TAIL_BUDGET * means(chunks), TAIL_EFFECT),
        ln_ppl=LN_BUDGET
        * (sign * means(chunks) + LN_SPREAD * rng.standard_normal((cells, chunks))),
        flips=_shares(rng, FLIP_BUDGET * means(chunks), FLIP_EFFECT),
        decode=2 * KL_BUDGET * means(DECODED) * log_normal(rng, (cells, DECODED), DECODE_SPREAD),
    )


def log_normal(rng: np.random.Generator, shape: tuple[int, int], spread: float) -> F64:
    """Mean 1, standard deviation ``spread``."""
    sigma = np.sqrt(np.log1p(spread**2))
    return np.exp(sigma * rng.standard_normal(shape) - sigma**2 / 2)


def _shares(rng: np.random.Generator, p: F64, effect: float) -> F64:
    """Shares of tokens: beta-binomial with variance ``effect`` times the binomial one."""
    p = np.minimum(p, 0.999)
    concentration = (TOKENS - effect) / (effect - 1)
    drawn = rng.beta(p * concentration, (1 - p) * concentration)
    shares: F64 = rng.binomial(TOKENS, drawn) / TOKENS
    return shares
