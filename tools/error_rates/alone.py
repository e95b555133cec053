"""Routes to a verdict that share 1 % among their own, by the very functions of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.recall import ALPHA as OF_RECALL
from pytest_kvquant.checks.robustness import ALPHA as OF_ROBUSTNESS
from pytest_kvquant.inputs.disturbance import DISTURBANCES
from pytest_kvquant.numerics import recall, robustness
from pytest_kvquant.quality.recall import SEQUENCES
from tools.error_rates.chunks import KL_BUDGET, KL_SPREAD, log_normal

CELLS, DISTANCES, CHUNKS = 16, 4, 32
GAIN, GAIN_SPREAD, KEPT_SPREAD = 3.0, 0.4, 0.1
"""Nats that f16 gains from a repeat; its spread between passages, and that of the share kept."""

LEVELS = (0.5, 0.9, 1.0, 1.2, 1.5, 2.0)
"""Of the way to the limit; one pair where beyond it."""

DEFAULTS = {one.key: one.default for one in registry.budgets() if one.default is not None}
"""Of the two limits, which no table of types changes."""


def alone(matrices: int) -> Iterable[str]:
    """A table: how often a run of 16 pairs fails by each."""
    yield (
        "Two tests correct for chance among their own figures alone. Runs that fail, all pairs on "
        "the level up to the limit, one pair beyond it:"
    )
    yield ""
    yield "| test | " + " | ".join(f"{one:g} ×" for one in LEVELS) + " |"
    yield "|---|" + "--:|" * len(LEVELS)
    for name, fails in (("`test_recall`", _recall), ("`test_robustness` (nightly)", _robustness)):
        rates = (100 * _share(fails, level, matrices) for level in LEVELS)
        yield f"| {name} | " + " | ".join(f"{rate:.2f} %" for rate in rates) + " |"


Fails = Callable[[np.random.Generator, float], bool]


def _share(fails: Fails, level: float, matrices: int) -> float:
    rng = np.random.default_rng(round(1000 * level))
    return sum(_run(rng, fails, level) for _ in range(matrices)) / matrices


def _run(rng: np.random.Generator, fails: Fails, level: float) -> bool:
    """Pairs beyond a limit are one of a run, the others at half of the way."""
    levels = [level] * CELLS if level <= 1 else [level, *[0.5] * (CELLS - 1)]
    return any([fails(rng, one) for one in levels])


def _recall(rng: np.random.Generator, level: float) -> bool:
    keep = DEFAULTS["recall"]
    alpha = OF_RECALL / (DISTANCES * CELLS)
    shape = (DISTANCES, SEQUENCES)
    gained = GAIN * log_normal(rng, shape, GAIN_SPREAD)
    kept = (1 - level * (1 - keep)) * gained * log_normal(rng, shape, KEPT_SPREAD)
    found = (recall.judge(*one, keep=keep, alpha=alpha) for one in zip(gained, kept, strict=True))
    return any(one.verdict == "fail" for one in found)


def _robustness(rng: np.random.Generator, level: float) -> bool:
    most = DEFAULTS["robustness"]
    alpha = OF_ROBUSTNESS / (len(DISTURBANCES) * CELLS)
    shape = (len(DISTURBANCES), CHUNKS)
    clean = KL_BUDGET * log_normal(rng, shape, KL_SPREAD)
    disturbed = (1 + level * (most - 1)) * clean * log_normal(rng, shape, KL_SPREAD)
    found = (
        robustness.judge_ratio(*one, most=most, alpha=alpha)
        for one in zip(clean, disturbed, strict=True)
    )
    return any(one.verdict == "fail" for one in found)
