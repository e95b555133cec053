"""What two contexts cost with an empty cache: the time that grows with the depth taken away.

A token's time is a + b·d at depth d: a is the weights', the same for every cache type, b is what
reading a row of the cache costs, which differs from type to type and from kernel to kernel. So the
ratio at an empty cache, a'/a, is near 1 for every healthy pair, on every model; that of the whole
time is not, and a floor for it would have to be a small model's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST = 0.6
"""Of a token's time, what must be left when the growth is taken away: where attention is most of
it, as in prefill of a tiny model, the growth's own error decides what is left."""

Side = tuple[float, float]
"""Nanoseconds of a token at one depth, and at a deeper one."""

MOST = 0.5
"""Of the way between the two depths, what may lie within the test at the first: beyond it, the
growth's own error weighs too much."""


def growth(tokens: int, shallow: int, deep: int, side: Side) -> float | None:
    """Nanoseconds by which a token takes longer per token in the cache; ``None``: not known.

    Args:
        tokens: of a test.
        shallow, deep: the two depths.
        side: times of a token at them.
    """
    if deep <= shallow or tokens > MOST * (deep - shallow):
        return None
    return max(0.0, (side[1] - side[0]) / (deep - shallow))


def log_ratios(
    rounds: Sequence[tuple[int, int, int, int]], tokens: int, depth: int, grows: tuple[float, float]
) -> list[float] | None:
    """ln of the speed over that of f16, of each round, at an empty cache.

    What a whole test adds to the cache is taken away, not half of it: some kernels go over masked
    rows too. So a healthy pair looks faster than it is, and a fault of the whole as large as it is.

    Args:
        rounds: nanoseconds of a test, in the order A B B A.
        depth: of the test.
        grows: nanoseconds per token in the cache, of the cell and of f16.

    Returns:
        ``None`` where growth is too much of it, see :data:`LEAST`.
    """
    read = depth + tokens
    found = []
    for a1, b1, b2, a2 in rounds:
        cell = math.sqrt(b1 * b2) / tokens
        reference = math.sqrt(a1 * a2) / tokens
        left = cell - grows[0] * read, reference - grows[1] * read
        if left[0] < LEAST * cell or left[1] < LEAST * reference:
            return None
        found.append(math.log(left[1] / left[0]))
    return found
