"""Work of a token and rates of a machine in, the most tok/s that they permit out, as data.

The roofline model (Williams, Waterman, Patterson: Roofline, CACM 52/4, 2009) with the two parts
taken apart: one token at a time is bound by the bytes it reads, a prefill by its operations.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Bound = Literal["bandwidth", "operations"]


class TokenWork(NamedTuple):
    """What one token costs at least."""

    weights: float
    """Bytes of weights read for it, or for all tokens that are decoded at once."""
    cache: float
    """Bytes of the KV cache, likewise."""
    operations: float
    """Multiplications and additions."""


class MachineRates(NamedTuple):
    """What a machine does at most, measured."""

    read: float
    """Bytes of memory a second."""
    multiply: float
    """Multiplications and additions a second, of a product of matrices in f32 or f16."""


class Roof(NamedTuple):
    """The most that a machine permits, and by what."""

    by: Bound
    rate: float
    """Bytes or operations a second, measured."""
    amount: float
    """Bytes or operations of a token."""

    @property
    def speed(self) -> float:
        """tok/s."""
        return self.rate / self.amount


def decode_roof(work: TokenWork, rates: MachineRates) -> Roof:
    """Of one token at a time: its weights and its cache are read once.

    >>> decode_roof(TokenWork(9e9, 1e9, 2e10), MachineRates(1e11, 1e12))
    Roof(by='bandwidth', rate=100000000000.0, amount=10000000000.0)
    """
    return Roof("bandwidth", rates.read, work.weights + work.cache)


def prefill_roof(work: TokenWork, rates: MachineRates, at_once: int) -> Roof:
    """Of ``at_once`` tokens together: operations, or what they read together, the slower of both.

    >>> prefill_roof(TokenWork(9e9, 1e9, 2e10), MachineRates(1e11, 1e12), 512).speed
    50.0
    """
    shared = Roof("bandwidth", rates.read, (work.weights + work.cache) / at_once)
    computed = Roof("operations", rates.multiply, work.operations)
    return min(shared, computed, key=lambda one: one.speed)
