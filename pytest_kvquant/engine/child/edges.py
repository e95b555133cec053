"""Child side: rows at which kernels change hands: tails, and multiples of 32 and of 256."""

from __future__ import annotations

import numpy as np

STEPS = (32, 256)
"""Rows that kernels take at once, or in one piece of work."""


def edges(rng: np.random.Generator, rows: int) -> set[int]:
    """The first and the last row, the first multiple of each step and another, and those before."""
    found = {0, rows - 1}
    for step in STEPS:
        if rows > step:
            other = step * int(rng.integers(1, (rows - 1) // step + 1))
            found |= {step - 1, step, other - 1, other}
    return found
