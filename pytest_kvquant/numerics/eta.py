"""How long a run will still take, from what its parts have taken so far.

A run is made of kinds of work (a chunk of the reference, a cell's quality, a cell's speed, …), each
with a guess of its seconds a unit. Two things are learnt as units are finished: how much faster or
slower this machine is than the guesses, from all kinds together, and each kind's own rate, from its
own units. A kind that has not begun is its guess times the machine's factor; so the forecast is
usable after the first cell, before the first of its speed tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

TRUST = 0.35
"""Units that a guess is worth beside what was measured of its own kind."""

TELLS = 0.1
"""From this share of it on, a piece of work tells how long it takes."""

CALM = 1.0
"""Seconds of guessed work that "this machine is as guessed" is worth: of two fast units it is not
concluded that the rest will be as fast."""


class Kind(NamedTuple):
    """One kind of work of a run."""

    planned: float
    """Units in all, as far as is known now."""
    guess: float
    """Seconds a unit, before anything is known; above 0."""
    done: float = 0.0
    """Units finished."""
    spent: float = 0.0
    """Seconds that they took."""
    begun: float = 0.0
    """Seconds that the unit in work has taken so far; 0 where none is."""
    share: float = 0.0
    """How far the unit in work is, 0 to 1, where it says so; else 0."""
    size: float = 1.0
    """Units of what is in work: pairs that are timed together are one piece of it."""
    steady: bool = True
    """Whether what its units take tells of the machine; not where much of it happens once: code is
    compiled and loaded in the first run and not in the next."""


def pace(kinds: Iterable[Kind], calm: float = CALM) -> float:
    """This machine's time over the guessed one, from all that was finished; 1 before anything was.

    Args:
        calm: seconds of guessed work that "this machine is as guessed" is worth.

    >>> pace([Kind(10, 2.0)]), round(pace([Kind(10, 2.0, done=10, spent=60.0)]), 2)
    (1.0, 2.9)
    >>> pace([Kind(1, 2.0, done=1, spent=60.0, steady=False)])
    1.0
    """
    steady = [kind for kind in kinds if kind.steady]
    guessed = sum(kind.done * kind.guess for kind in steady)
    spent = sum(kind.spent for kind in steady)
    return (spent + calm) / (guessed + calm)


def rate(kind: Kind, factor: float) -> float:
    """Seconds a unit of this kind.

    >>> round(rate(Kind(10, 2.0), 3.0), 2)
    6.0
    >>> round(rate(Kind(10, 2.0, done=5, spent=50.0), 3.0), 2)
    9.74
    """
    return (kind.spent + TRUST * factor * kind.guess) / (kind.done + TRUST)


def known_calm(kinds: Iterable[Kind]) -> float:
    """The calm where guesses are what an earlier run took: a quarter of what is planned.

    The same machine did the same: one quick part of it does not make all the others quick.

    >>> known_calm([Kind(10, 2.0), Kind(4, 5.0)]), known_calm([Kind(1, 2.0)])
    (10.0, 1.0)
    """
    return max(CALM, sum(kind.planned * kind.guess for kind in kinds) / 4)


def left(kinds: Iterable[Kind], calm: float = CALM) -> float:
    """Seconds until all that is planned is finished; never negative.

    Args:
        calm: see :func:`pace`.

    The piece in work counts with what is left of it: by its own word where it says how far it is,
    else by what units of its kind take; one that takes longer than that is about to end. What it
    says of itself counts for the units that follow it too.
    """
    kinds = list(kinds)
    factor = pace(kinds, calm)
    seconds = 0.0
    for kind in kinds:
        open_units = max(kind.planned - kind.done, 0.0)
        size = min(open_units, kind.size)
        tells = kind.begun > 0 and size > 0 and TELLS <= kind.share <= 1
        known = kind
        if tells:
            known = kind._replace(done=kind.done + kind.share * size, spent=kind.spent + kind.begun)
        each = rate(known, factor if kind.steady else 1.0)
        seconds += open_units * each
        if size <= 0 or kind.begun <= 0:
            continue
        if tells:
            whole = kind.begun / kind.share
            weight = kind.share
            expected = weight * whole + (1 - weight) * max(size * each, kind.begun)
            seconds += expected - kind.begun - size * each
        else:
            seconds -= min(kind.begun, size * each)
    return max(seconds, 0.0)


def error(forecast: float, truth: float) -> float:
    """How far a forecast was off, as a share of the truth: 0.3 is 30 % too long or too short.

    >>> error(13.0, 10.0), error(7.0, 10.0)
    (0.3, 0.3)
    """
    if truth <= 0:
        return math.inf if forecast > 0 else 0.0
    return round(abs(forecast - truth) / truth, 12)
