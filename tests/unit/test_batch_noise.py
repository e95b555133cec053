"""How far two batch sizes of a healthy pair may be apart: the model beside simulated rounding."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.quality import batch_noise
from pytest_kvquant.results.kernels import Examination, RungRecord


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
