"""Evidence that may be looked at after every chunk: e-values by betting."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.stats import chunk_figures

MEAN_STAKES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""Stakes λ of the bet against a mean; small ones catch slight excess, large ones gross faults."""

SIGN_STAKES = (0.4, 0.7, 0.9)
"""Stakes λ of the bet against a median."""

LARGEST_E = float(np.finfo(np.float64).max)
"""E-values saturate here, so that they stay finite in JSON and 1/E stays above zero."""


class SignEvidence(NamedTuple):
    """Running e-values of the speed rounds, each of shape (n_rounds,)."""

    below: F64
    """Evidence that the median ratio is under the floor: the FAIL side."""
    above: F64
    """Evidence that the median ratio is over the floor: the PASS side."""


def betting_e_values(x: npt.ArrayLike, budget: float) -> F64:
    """Running e-values E_1 … E_n against "the mean of x is at most the budget".

        E_n = mean over λ of Π_{c <= n} (1 + λ·(x_c / B - 1))

    Valid at every n and under any stopping rule, for any distribution on [0, ∞) and any
    dependence in which each chunk's mean given the earlier ones is at most B: then
    P(E_n >= 1/alpha for some n) <= alpha. Ville 1939; Waudby-Smith & Ramdas 2024.

    Args:
        x: shape (n_chunks,), non-negative, in the order drawn.
        budget: B > 0, in the unit of x.

    Returns:
        Shape (n_chunks,), without unit, saturating at `LARGEST_E`.

    Raises:
        ValueError: for a negative or non-finite x, or a budget that is not a positive number.
    """
    figures = chunk_figures(x)
    if figures.min() < 0:
        raise ValueError("a bet against a mean needs figures that cannot be negative")
    if not 0 < budget < math.inf:
        raise ValueError(f"a bet against a mean needs a budget above zero, got {budget}")
    with np.errstate(over="ignore"):  # x/B beyond float64 is an infinite gain, and meant so
        return _mixture(figures / budget - 1, MEAN_STAKES)


def sign_e_values(log_ratio: npt.ArrayLike, floor: float) -> SignEvidence:
    """Running sign e-values of the speed ratio against a floor, in both directions.

        s = +1 where d < ln r0, else -1;   E_n = mean over λ of Π_{i <= n} (1 + λ·s_i)

    and mirrored (d > ln r0) for PASS; a round exactly on the floor counts against both. Only
    the median of the ratio matters: one slow round, however slow, is one round. Ville 1939.

    Args:
        log_ratio: d, shape (n_rounds,): ln(tok/s of the cell) - ln(tok/s of f16/f16) per round.
        floor: r0 > 0, the least ratio allowed.

    Raises:
        ValueError: for non-finite rounds or a floor that is not a positive number.
    """
    rounds = chunk_figures(log_ratio)
    if not 0 < floor < math.inf:
        raise ValueError(f"the floor of a speed ratio must be above zero, got {floor}")
    edge = math.log(floor)
    return SignEvidence(
        below=_mixture(np.where(rounds < edge, 1.0, -1.0), SIGN_STAKES),
        above=_mixture(np.where(rounds > edge, 1.0, -1.0), SIGN_STAKES),
    )


def _mixture(gains: F64, stakes: tuple[float, ...]) -> F64:
    """Mean over stakes λ of the running products Π (1 + λ·gain), in log space."""
    stake = np.asarray(stakes)[:, np.newaxis]
    log_wealth = np.cumsum(np.log1p(stake * gains), axis=1)
    log_mean = np.logaddexp.reduce(log_wealth, axis=0) - math.log(len(stakes))
    e_values: F64 = np.exp(np.minimum(log_mean, math.log(LARGEST_E)))
    return e_values


def e_to_p(e_value: float) -> float:
    """min(1, 1/E): a p-value that stays valid whenever one looks (Ville 1939)."""
    return 1.0 if e_value <= 1 else 1 / e_value
