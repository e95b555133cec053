"""The gates beside the healthy cell, for many cells at once: :mod:`pytest_kvquant.numerics.ratio`.

A test compares them with the gates of one cell, one by one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped, unused-ignore]

from pytest_kvquant.checks.healthy import Allowance
from pytest_kvquant.numerics import ratio
from pytest_kvquant.numerics.rules import Rules
from tools.error_rates.decisions import F64, Bools, Rulings, first_look


class _Ends(NamedTuple):
    figure: F64
    low: F64
    high: F64


def by_ratio(x: F64, y: F64, allowed: Allowance, rules: Rules) -> Rulings:
    """A figure of cells over that of their emulations, both of shape ``(cells, chunks)``."""
    cells, chunks = x.shape
    passing = np.zeros((cells, len(rules.schedule)), np.bool_)
    failing = np.zeros_like(passing)
    p, best = np.ones((cells, chunks)), np.ones(cells)
    for number, look in enumerate(rules.schedule):
        if look < ratio.LEAST:
            continue
        ours, theirs = x[:, :look], y[:, :look]
        last = number == len(rules.schedule) - 1
        passing[:, number], failing[:, number] = _speak(ours, theirs, allowed, rules, last=last)
        best = np.minimum(best, _p_value(ours, theirs, allowed))
        p[:, look - 1 :] = np.minimum(1.0, rules.looks_planned * best)[:, np.newaxis]
    return Rulings(first_look(passing, rules), first_look(failing, rules), p, None)


def _speak(x: F64, y: F64, allowed: Allowance, rules: Rules, *, last: bool) -> tuple[Bools, Bools]:
    """Which cells would pass, and which fail, at one look."""
    limit = allowed.limit
    over = _fieller(np.maximum(x - allowed.floor, 0), y, rules.level)
    under = _fieller(x + allowed.floor, y, rules.level)
    failing = over.low > limit
    half = (over.high - over.low) / 2
    widened = np.where(np.isfinite(half), np.maximum(limit, 1 + half / ratio.SHARE), np.inf)
    most = np.minimum(allowed.widest, widened)
    if allowed.two_sided:
        failing |= under.high < 1 / limit
    if last:
        inside = over.figure <= limit
        inside &= under.figure <= limit
        if allowed.two_sided:
            inside &= (over.figure >= 1 / limit) & (under.figure >= 1 / limit)
        most = np.where(inside, allowed.widest, most)
    passing = over.high <= most
    if allowed.two_sided:
        passing &= under.low >= 1 / most
    nothing = ~y.any(axis=1)
    quiet = x.max(axis=1) <= allowed.floor
    apart = x.mean(axis=1) - _reach(x, rules.level) > allowed.floor
    return np.where(nothing, quiet, passing), np.where(nothing, apart, failing)


def _fieller(x: F64, y: F64, level: float) -> _Ends:
    n = x.shape[1]
    xm, ym = x.mean(axis=1), y.mean(axis=1)
    t2 = stdtrit(n - 1, 1 - level) ** 2 / n
    dx, dy = x - xm[:, np.newaxis], y - ym[:, np.newaxis]
    xx, yy, xy = ((one * other).sum(axis=1) / (n - 1) for one, other in
                  ((dx, dx), (dy, dy), (dx, dy)))  # fmt: skip
    a, b, c = ym * ym - t2 * yy, xm * ym - t2 * xy, xm * xm - t2 * xx
    inside = b * b - a * c
    known = (a > 0) & (inside >= 0) & (ym > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(inside)
        figure = np.where(ym > 0, xm / ym, np.where(xm > 0, np.inf, 1.0))
        low = np.where(known, (b - root) / a, -np.inf)
        high = np.where(known, (b + root) / a, np.inf)
    return _Ends(figure, low, high)


def _p_value(x: F64, y: F64, allowed: Allowance) -> F64:
    over = _one_sided(x - allowed.limit * y - allowed.floor)
    if not allowed.two_sided:
        return over
    return np.minimum(over, _one_sided(y / allowed.limit - x - allowed.floor))


def _one_sided(x: F64) -> F64:
    n, mean = x.shape[1], x.mean(axis=1)
    error = np.where(np.ptp(x, axis=1) > 0, x.std(axis=1, ddof=1) / math.sqrt(n), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread: F64 = stdtr(n - 1, -mean / error)
    return np.where(error > 0, spread, np.where(mean > 0, 0.0, 1.0))


def _reach(x: F64, level: float) -> F64:
    n = x.shape[1]
    reach: F64 = stdtrit(n - 1, 1 - level) * x.std(axis=1, ddof=1) / math.sqrt(n)
    return reach
