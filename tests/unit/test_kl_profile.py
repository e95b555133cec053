from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.numerics.metrics import LOG10_KL_EDGES, kl_profile


def test_positions_are_means_of_equal_runs() -> None:
    kl = np.tile(np.repeat(np.arange(1.0, 17.0), 4), (3, 1))
    assert kl_profile(kl).positions == pytest.approx(tuple(range(1, 17)))


def test_every_token_is_in_one_bin_and_zero_in_the_first() -> None:
    kl = np.array([[0.0, -1e-9, 1e-12, 1e-8, 1.1e-3, 1e-3, 5.0, 1e6]])
    histogram = kl_profile(kl).histogram
    low, _, width = LOG10_KL_EDGES
    assert sum(histogram) == kl.size
    assert histogram[0] == 4
    assert histogram[round((-3 - low) / width)] == 2
    assert histogram[-1] == 1


def test_fewer_tokens_than_bins() -> None:
    assert kl_profile(np.array([[0.5, 0.25]])).positions == (0.5, 0.25)
