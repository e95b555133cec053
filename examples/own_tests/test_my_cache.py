"""Tests of a project's own over the cells of ``pytest --kv-matrix``: see docs/api.md."""

from __future__ import annotations

import pytest


@pytest.mark.kv(pairs=["q8_0/*"])
def test_eight_bit_keys_keep_nine_of_ten_tokens(kv_quality) -> None:
    """Any figure of a cell can be asserted on; a cell that was not measured fails in words."""
    assert kv_quality.figures.top1 > 0.9


@pytest.mark.kv(pairs=["q8_0/*", "*/q8_0"], budgets={"kl_mean": 0.02, "top1_flips": 0.15})
def test_what_this_product_needs(kv_quality) -> None:
    """Gates with the budgets of this test, judged with the statistics of the packaged ones."""
    kv_quality.check("kl_mean")
    kv_quality.check("top1_flips")


def test_a_pair_pays_for_itself(kv_cell, kv_quality) -> None:
    """Every pair but f16/f16 has to take less memory than f16."""
    census = kv_quality.cell.census
    assert census is not None
    if str(kv_cell) != "f16/f16":
        assert census.compression_expected > 1


def test_fewer_bits_cost_more(kv_matrix) -> None:
    """The run as a whole: all its cells, measured once whoever asks first."""
    kl = {
        str(pair): kv_matrix.measure(pair).quality.prefill.kl_mean
        for pair in kv_matrix.pairs
        if pair.k == pair.v
    }
    assert kl == dict(sorted(kl.items(), key=lambda entry: entry[1]))
