"""The rules of the gates for many cells at once, one array operation instead of a call per cell.

The same decisions as those of one cell (a test compares them, gate by gate): FAIL by the betting
e-value after every chunk or by a t interval at looks, PASS by an interval at looks, what is open at
the cap by the plain mean where the rules say so, and a cell that draws until every gate is settled.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import (  # type: ignore[import-untyped, unused-ignore]
    betaincinv,
    stdtr,
    stdtrit,
)

from pytest_kvquant.numerics import betting
from pytest_kvquant.numerics.rules import LEAST_CHUNKS, Rules

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NEVER = 1 << 40
"""A chunk count that no cell reaches."""


class Rulings(NamedTuple):
    """What one gate says of many cells; every array but ``p`` has shape ``(cells,)``."""

    passes: I64
    """Chunks at which it passes; ``NEVER`` where it does not."""
    fails: I64
    """Chunks at which it fails, by a test; ``NEVER`` where it does not."""
    p: F64
    """p-value after each chunk, shape ``(cells, chunks)``."""
    over: Bools | None
    """Whether the plain mean of all chunks is over the budget, in either direction; ``None`` for a
    gate that no census decides."""


class Outcome(NamedTuple):
    """What one gate came to in the run, each of shape ``(cells,)``."""

    passed: Bools
    failed: Bools
    p: F64


def by_bet(x: F64, budget: float, rules: Rules, passing: Bools) -> Rulings:
    """A gate on a figure that cannot be negative.

    Args:
        x: shape ``(cells, chunks)``.
        passing: shape ``(cells, looks)``: whether the interval's end is within the budget there.
    """
    wealth = np.full(x.shape, -np.inf)
    for stake in betting.MEAN_STAKES:
        with np.errstate(divide="ignore"):
            gains = np.cumsum(np.log1p(stake * (x / budget - 1)), axis=1)
        np.logaddexp(wealth, gains, out=wealth)
    e = np.exp(np.minimum(wealth - math.log(len(betting.MEAN_STAKES)), 700.0))
    if rules.early:
        e = np.maximum.accumulate(e, axis=1)
    over = e >= rules.e_threshold
    if not rules.early:
        over[:, :-1] = False
    return Rulings(
        first_look(passing, rules), _first(over), 1 / np.maximum(e, 1), x.mean(axis=1) > budget
    )


def kl_mean(x: F64, budget: float, rules: Rules) -> Rulings:
    """Mean KL per chunk, shape ``(cells, chunks)``."""

    def within(seen: F64) -> Bools:
        n, mean = seen.shape[1], seen.mean(axis=1)
        error = seen.std(axis=1, ddof=1) / math.sqrt(n)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            reach = stdtrit(n - 1, 1 - rules.level) * error / mean
            high = np.where(mean > 0, mean * np.exp(reach), 0.0)
        inside: Bools = high < budget
        return inside

    return by_bet(x, budget, rules, _at_looks(x, rules, within))


def share(x: F64, budget: float, rules: Rules, *, tokens: int, least: float) -> Rulings:
    """A share of tokens per chunk, shape ``(cells, chunks)``; ``least``: design effect assumed."""

    def within(seen: F64) -> Bools:
        n, mean = seen.shape[1], seen.mean(axis=1)
        binomial = mean * (1 - mean)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = tokens * seen.var(axis=1, ddof=1) / binomial
        effect = np.where(binomial > 0, np.maximum(least, spread), least)
        effective = n * tokens / effect
        hits, misses = mean * effective, (1 - mean) * effective
        inside: Bools = betaincinv(hits + 1, misses, 1 - rules.level) < budget
        return inside

    return by_bet(x, budget, rules, _at_looks(x, rules, within))


def ln_ppl(x: F64, budget: float | F64, rules: Rules) -> Rulings:
    """The two-sided gate, on the ln PPL ratio per chunk, shape ``(cells, chunks)``.

    Args:
        budget: one, or that of each cell by its chunks so far, shape ``(cells, chunks)``.
    """
    cells, chunks = x.shape
    bounds = np.broadcast_to(np.asarray(budget), x.shape)
    p = np.ones((cells, chunks))
    outside = np.zeros((cells, len(rules.schedule)), np.bool_)
    inside = np.zeros_like(outside)
    best = np.ones(cells)
    for number, look in enumerate(rules.schedule):
        if look < LEAST_CHUNKS:
            continue
        seen, most = x[:, :look], bounds[:, look - 1]
        mean, error = seen.mean(axis=1), seen.std(axis=1, ddof=1) / math.sqrt(look)
        reach = stdtrit(look - 1, 1 - rules.level) * error
        outside[:, number] = (mean - reach > most) | (mean + reach < -most)
        inside[:, number] = (-most < mean - reach) & (mean + reach < most)
        distance = np.abs(mean)
        sides = stdtr(look - 1, (most - distance) / error)
        sides += stdtr(look - 1, -(most + distance) / error)
        best = np.minimum(best, sides)
        p[:, look - 1 :] = np.minimum(1.0, rules.looks_planned * best)[:, np.newaxis]
    mean_over = np.abs(x.mean(axis=1)) > bounds[:, -1]
    return Rulings(first_look(inside, rules), first_look(outside, rules), p, mean_over)


def conclude(gates: list[Rulings], rules: Rules, figures_in_run: int) -> list[Outcome]:
    """The gates of cells that draw until all of theirs are settled, or to the cap."""
    drawn = np.zeros(len(gates[0].passes), np.int64)
    for gate in gates:
        failed = gate.fails <= gate.passes
        sure = gate.p <= rules.alpha / figures_in_run
        numbers = np.arange(1, gate.p.shape[1] + 1)
        settled = _first(sure & (numbers >= gate.fails[:, np.newaxis]))
        drawn = np.maximum(drawn, np.where(failed & (gate.fails < NEVER), settled, gate.passes))
    drawn = np.minimum(drawn, rules.cap)
    return [_outcome(gate, rules, drawn) for gate in gates]


def family(outcomes: list[Outcome], matrices: int, figures_in_run: int, alpha: float) -> Bools:
    """Whether each matrix fails: a failing gate that Holm keeps among all figures of the run.

    Args:
        outcomes: gates of the same cells, those of one matrix in a row.

    Returns:
        Shape ``(matrices,)``.
    """
    p = np.concatenate([one.p.reshape(matrices, -1) for one in outcomes], axis=1)
    failed = np.concatenate([one.failed.reshape(matrices, -1) for one in outcomes], axis=1)
    order = np.argsort(p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    steps = alpha / np.arange(figures_in_run, figures_in_run - p.shape[1], -1)
    kept = np.logical_and.accumulate(ranked <= steps, axis=1)
    stands: Bools = (kept & np.take_along_axis(failed, order, axis=1)).any(axis=1)
    return stands


def _outcome(gate: Rulings, rules: Rules, drawn: I64) -> Outcome:
    """A later chunk than the last one drawn was not seen."""
    failed = (gate.fails <= gate.passes) & (gate.fails <= drawn)
    passed = ~failed & (gate.passes <= drawn)
    open_ = ~failed & ~passed
    at = np.where(passed, gate.passes, drawn)
    p = np.take_along_axis(gate.p, at[:, np.newaxis] - 1, axis=1)[:, 0]
    if rules.census and gate.over is not None:
        failed = failed | (open_ & gate.over)
        passed = passed | (open_ & ~gate.over)
    return Outcome(passed, failed, p)


def _at_looks(x: F64, rules: Rules, within: object) -> Bools:
    found = np.zeros((len(x), len(rules.schedule)), np.bool_)
    for number, look in enumerate(rules.schedule):
        if look >= LEAST_CHUNKS:
            found[:, number] = within(x[:, :look])  # type: ignore[operator]
    return found


def _first(true: Bools) -> I64:
    """The first chunk, from 1, at which each row is true."""
    found = np.where(true.any(axis=1), true.argmax(axis=1) + 1, NEVER)
    return np.asarray(found, np.int64)


def first_look(true: Bools, rules: Rules) -> I64:
    """The first look at which each row is true."""
    looks = np.asarray([*rules.schedule, NEVER], np.int64)
    return looks[np.where(true.any(axis=1), true.argmax(axis=1), len(rules.schedule))]
