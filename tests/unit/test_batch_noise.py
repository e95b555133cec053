"""How far two batch sizes of a healthy pair may be apart: the model beside simulated rounding."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.quality import batch_noise
from pytest_kvquant.quality.scenario_limits import DEVICE_LEAST, LEAST, own_limit
from pytest_kvquant.results.kernels import CornerRecord, Examination, RungRecord, ScenarioRecord


@pytest.mark.parametrize("noise", [0.003, 0.01, 0.05])
def test_roundings_that_fall_the_other_way_are_modelled(noise: float) -> None:
    """Squared errors stand for divergence: both are in proportion."""
    rng = np.random.default_rng(0)
    x, step = rng.normal(size=200_000), 0.3
    both = [x + noise / np.sqrt(2) * rng.normal(size=x.size) for _ in range(2)]
    apart = np.square(both[0] - both[1]).mean()
    quantized = [step * np.rint(one / step) for one in both]
    turned = np.square(quantized[0] - quantized[1]).mean()
    usual = np.square(quantized[0] - both[0]).mean()
    modelled = (batch_noise.allowed(apart, usual) - batch_noise.FACTOR * apart) / 3
    assert turned == pytest.approx(modelled, rel=0.1)
    assert turned > apart


def test_a_batch_size_of_few_tokens_is_not_the_only_witness() -> None:
    found = Examination(
        level="standard",
        rungs=tuple(
            RungRecord(depth=250, tokens=n, own=own)
            for n, own in ((1, 0.0), (2, 3e-4), (8, 1e-4), (64, None))
        ),
    )
    assert batch_noise.of_rung(found, 250, 1) == 1e-4
    assert batch_noise.of_rung(found, 250, 2) == 3e-4
    assert batch_noise.of_rung(None, 250, 2) == 0.0
    assert batch_noise.of_sizes(found, {12}) == 1e-4
    assert batch_noise.of_sizes(found, {1, 2}) == 3e-4
    assert batch_noise.of_sizes(found, set()) == 0.0


def examined(backend: str, *, own: float, noise: float) -> Examination:
    """f16, as it was examined on a device; ``own``: between labels of a scenario."""
    return Examination(
        level="standard",
        corners=(
            CornerRecord(
                operation="attention", backend=backend, nodes=1, failed=0, ratio=0, error=0, worst=0
            ),
        ),
        rungs=tuple(RungRecord(depth=250, tokens=n, own=noise) for n in (1, 4, 16)),
        scenarios=(ScenarioRecord(name="slots", title="", verdict="pass", text="", own=own),),
    )


def test_f16_in_a_scenario_is_held_against_its_own_ladder_on_a_gpu() -> None:
    """Measured on an H200: 0.00027 and 0.00089 between batches, where a CPU shows nothing."""
    on_gpu = examined("CUDA0", own=8.9e-4, noise=5e-4)
    assert 8.9e-4 < own_limit(on_gpu, None, "slots", {1, 2}) < 5e-3
    on_cpu = examined("CPU", own=8.9e-4, noise=5e-4)
    assert own_limit(on_cpu, None, "slots", {1, 2}) == LEAST
    sensitive = examined("CPU", own=3.5e-3, noise=4.4e-3)  # Gemma 3 270M, healthy
    assert own_limit(sensitive, None, "slots", {1, 2}) > 3.5e-3
    broken = examined("CUDA0", own=0.1, noise=0.1)
    assert own_limit(broken, None, "slots", {1, 2}) < 0.02


def test_a_pair_in_a_scenario_is_held_against_f16_in_the_same() -> None:
    pair = examined("CUDA0", own=2e-3, noise=0.0)
    assert own_limit(pair, examined("CUDA0", own=8.9e-4, noise=0), "slots", {1}) > 2e-3
    assert own_limit(pair, examined("CUDA0", own=0.0, noise=0), "slots", {1}) == DEVICE_LEAST
