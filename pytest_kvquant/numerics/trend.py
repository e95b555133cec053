"""Where a series of figures changed its level: information for a person, not a gate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEAST_NOISE = 0.01
"""Standard deviation, relative to the level, below which a series is not believed to be steadier:
without it every rounding would be a change."""


def change_points(values: Sequence[float]) -> list[int]:
    """Indices at which a new level begins, ascending.

    Binary segmentation: the split of a segment that lowers its sum of squares most is kept if it
    lowers it by more than 2·σ²·ln n times 2, the BIC penalty of one more level and its place
    (Yao 1988). σ comes from the differences of neighbours, which a step barely touches:
    1.4826·median|Δ|/√2.

    Args:
        values: figures in the order of time, all finite.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < 3:
        return []
    steps = np.abs(np.diff(series))
    level = float(np.median(np.abs(series)))
    noise = max(1.4826 * float(np.median(steps)) / math.sqrt(2), LEAST_NOISE * level)
    if noise == 0:
        return []
    penalty = 4 * noise**2 * math.log(len(series))
    return sorted(_split(series, 0, len(series), penalty))


def _split(series: npt.NDArray[np.float64], start: int, stop: int, penalty: float) -> list[int]:
    gains = [
        (_squares(series[start:stop]) - _squares(series[start:at]) - _squares(series[at:stop]), at)
        for at in range(start + 1, stop)
    ]
    gain, at = max(gains, default=(0.0, start))
    if gain <= penalty:
        return []
    return [*_split(series, start, at, penalty), at, *_split(series, at, stop, penalty)]


def _squares(segment: npt.NDArray[np.float64]) -> float:
    return float(((segment - segment.mean()) ** 2).sum())
