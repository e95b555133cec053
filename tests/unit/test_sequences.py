"""How a sequence begins."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_kvquant.checks.shapes import check_reference_paths
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.results.cell import TwoPaths


def test_bos_takes_the_place_of_the_first_token_of_each_sequence() -> None:
    tokens = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert from_start(tokens, 9).tolist() == [[9, 1, 2], [9, 4, 5]]
    assert from_start(tokens[0], 9).tolist() == [9, 1, 2]
    assert tokens.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_model_that_wants_none_gets_none() -> None:
    assert from_start([3, 4], None).tolist() == [3, 4]
    assert from_start(np.zeros((2, 0)), 9).shape == (2, 0)
    assert from_start([0], None).dtype == np.int32


@pytest.mark.parametrize("kl", [0.0, 3.8e-5, 1.9e-3])
def test_paths_of_f16_that_agree(kl: float) -> None:
    assert check_reference_paths(TwoPaths(kl=kl, ppl_prefill=18, ppl_decode=18), 1e-5) is None
    assert check_reference_paths(None, 0.0) is None


def test_a_noisy_machine_is_allowed_its_noise() -> None:
    assert check_reference_paths(TwoPaths(kl=0.01, ppl_prefill=18, ppl_decode=18), 2e-3) is None


@pytest.mark.parametrize("kl", [0.1, float("inf"), float("nan")])
def test_paths_of_f16_that_do_not_agree(kl: float) -> None:
    paths = TwoPaths(kl=kl, ppl_prefill=18.03, ppl_decode=1029.2)
    found = check_reference_paths(paths, 1e-5)
    assert found is not None
    assert found.verdict == "fail"
    assert "a perplexity of 1,029 where the same tokens at once have 18.03" in found.text
