"""Drift of a cell between two measurements: what moves, what does not, and which way."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.numerics.drift import drift
from pytest_kvquant.numerics.trend import change_points

RNG = np.random.default_rng(3)
KL = RNG.gamma(4.0, 0.005, size=16)


def _figures(kl: np.ndarray, *, ln_ppl: float = 0.0, top1: float = 0.95) -> dict[str, list[float]]:
    return {"kl": kl.tolist(), "ln_ppl": [ln_ppl] * len(kl), "top1": [top1] * len(kl)}


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "equal"), (1.02, "changed"), (0.97, "changed"), (1.06, "worse"), (0.9, "better")],
)
def test_kl_moves_by_a_factor(factor: float, verdict: str) -> None:
    assert drift(_figures(KL), _figures(KL * factor)).verdict == verdict


def test_pairing_sees_six_percent_in_chunks_that_differ_by_half() -> None:
    noisy = KL * 1.08 * np.exp(RNG.normal(0, 0.005, size=16))
    assert drift(_figures(KL), _figures(noisy)).verdict == "worse"
    assert KL.std() / KL.mean() > 0.4


def test_scatter_without_a_level_is_no_drift() -> None:
    scattered = KL * np.exp(RNG.normal(0, 0.3, size=16))
    assert drift(_figures(KL), _figures(scattered)).verdict == "changed"


def test_kl_at_the_floor_is_inactive() -> None:
    assert drift(_figures(KL), _figures(KL * 1e-5), floor=1e-5).verdict == "inactive"
    assert drift(_figures(KL), _figures(KL * 0.0)).verdict == "inactive"


def test_under_the_floor_only_absolute_figures_count() -> None:
    tiny = KL * 1e-4
    assert drift(_figures(tiny), _figures(tiny * 3), floor=1e-5).verdict == "changed"
    assert drift(_figures(tiny), _figures(tiny, ln_ppl=3e-4), floor=1e-5).verdict == "worse"
    assert drift(_figures(tiny), _figures(tiny, top1=0.93), floor=1e-5).verdict == "worse"


def test_one_chunk_never_drifts() -> None:
    assert drift(_figures(KL[:1]), _figures(KL[:1] * 9)).verdict == "changed"


def test_no_chunk_in_common() -> None:
    with pytest.raises(ValueError, match="no chunk"):
        drift(_figures(KL[:0]), _figures(KL))


def test_a_step_is_one_change_point() -> None:
    series = np.concatenate([np.full(9, 1.0), np.full(5, 1.3)]) * RNG.normal(1, 0.004, size=14)
    assert change_points(series.tolist()) == [9]


def test_the_last_run_may_be_the_change() -> None:
    assert change_points([1.0, 1.001, 0.999, 1.0, 1.4]) == [4]


def test_noise_has_no_change_points() -> None:
    false = sum(bool(change_points(RNG.normal(1, 0.02, size=30).tolist())) for _ in range(200))
    assert false <= 20


def test_equal_or_few_runs_have_none() -> None:
    assert change_points([2.0] * 10) == change_points([1.0, 9.0]) == change_points([0.0] * 5) == []
