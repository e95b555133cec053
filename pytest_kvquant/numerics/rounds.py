"""Speed rounds in, verdicts out, as data.

A round is four samples in the order A B B A (A = f16/f16), so that a drift of the machine cancels
to first order; its figure is d = ½(ln B1 + ln B2) − ½(ln A1 + ln A2) in tok/s. Whether the median
of exp(d) lies under a floor is decided by the sign e-process (`stats.sign_e_values`): a round
that was disturbed, however badly, is one round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from pytest_kvquant.numerics.betting import sign_e_values

Verdict = Literal["pass", "fail", "inconclusive"]

CLIFF = 0.5
"""A ratio under this in each of the first rounds is a cliff."""

CLIFF_ROUNDS = 3

UNSTEADY = 0.10
"""More drop over a series, or spread over median, than this: the machine was not steady."""

LEAST_FOR_ABSOLUTE = 6
"""An absolute floor needs the best of so many samples."""

REFERENCE_AT_SPEED = 0.9
"""f16 itself must reach this share of its stored speed, else the machine is slow."""


class RoundRules(msgspec.Struct, frozen=True, kw_only=True):
    """When a series of rounds may decide."""

    least: int
    most: int
    threshold: float
    """E-value that decides, in either direction."""


class Decision(NamedTuple):
    """What a series says about one floor."""

    verdict: Verdict
    e_below: float
    """Largest evidence so far that the median ratio is under the floor."""
    e_above: float
    rounds: int
    """At which the verdict fell, or all of them."""


class Steadiness(NamedTuple):
    """How steady f16 itself ran, as shares."""

    drop: float
    """Loss of speed over the series: Theil-Sen slope of ln(tok/s) times its length."""
    spread: float
    """Interquartile range of the tok/s over their median."""

    @property
    def steady(self) -> bool:
        """Whether neither exceeds :data:`UNSTEADY`."""
        return self.drop <= UNSTEADY and self.spread <= UNSTEADY


def log_ratio(a1: float, b1: float, b2: float, a2: float) -> float:
    """d of one round, from the times of equal tests.

    >>> round(math.exp(log_ratio(10, 20, 20, 10)), 12)
    0.5
    """
    return 0.5 * (math.log(a1) + math.log(a2)) - 0.5 * (math.log(b1) + math.log(b2))


def median_ratio(log_ratios: Sequence[float]) -> float:
    """Median speed of the cell over that of f16."""
    return math.exp(float(np.median(log_ratios)))


def decide(log_ratios: Sequence[float], floor: float, rules: RoundRules) -> Decision:
    """Is the median ratio under the floor, over it, or not known yet?

    The first round count from ``rules.least`` on at which either e-value reaches the threshold
    decides; later rounds cannot undo it.

    Args:
        log_ratios: d of each round, in the order measured; at least one.
        floor: least ratio allowed, above 0.
    """
    evidence = sign_e_values(log_ratios, floor)
    for count in range(rules.least, len(log_ratios) + 1):
        below, above = float(evidence.below[count - 1]), float(evidence.above[count - 1])
        if below >= rules.threshold:
            return Decision("fail", below, above, count)
        if above >= rules.threshold:
            return Decision("pass", below, above, count)
    count = len(log_ratios)
    return Decision("inconclusive", float(evidence.below[-1]), float(evidence.above[-1]), count)


def is_cliff(log_ratios: Sequence[float], limit: float = CLIFF) -> bool:
    """Whether the first three rounds, all of them, ran at under this share of f16's speed."""
    first = log_ratios[:CLIFF_ROUNDS]
    return len(first) == CLIFF_ROUNDS and max(first) < math.log(limit)


def steadiness(reference_ns: Sequence[float]) -> Steadiness:
    """How steady f16 ran; its samples, in the order taken, at least two."""
    from scipy.stats import theilslopes

    speed = -np.log(np.asarray(reference_ns, dtype=np.float64))
    slope = float(theilslopes(speed).slope)
    low, middle, high = np.percentile(np.exp(speed), (25, 50, 75))
    drop = 1 - math.exp(min(0.0, slope * (len(speed) - 1)))
    return Steadiness(drop, float((high - low) / middle))


def judge_absolute(
    cell: Sequence[float],
    reference: Sequence[float],
    *,
    floor: float,
    stored_reference: float,
    steady: bool,
) -> Verdict:
    """tok/s against an absolute floor, for one process; a fail needs the same of a second one.

    Args:
        cell, reference: tok/s of each sample of the cell and of f16.
        floor: the least tok/s allowed.
        stored_reference: tok/s of f16 when the floor was recorded on the same hardware.
        steady: whether the machine ran steadily.

    Returns:
        ``inconclusive`` where too few samples were taken, or where f16 is slow too: then the
        machine is.
    """
    if max(cell) >= floor:
        return "pass"
    slow_machine = max(reference) < REFERENCE_AT_SPEED * stored_reference
    if slow_machine or not steady or len(cell) < LEAST_FOR_ABSOLUTE:
        return "inconclusive"
    return "fail"
