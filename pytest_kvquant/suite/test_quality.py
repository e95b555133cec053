"""Quality of every K/V pair against f16, one budget a test."""

from __future__ import annotations

from pytest_kvquant.outcomes.quality import CellQuality


def test_kl_divergence(kv_quality: CellQuality) -> None:
    """Mean KL(f16 ‖ pair) is within its budget."""
    kv_quality.check("kl_mean")


def test_kl_tail(kv_quality: CellQuality) -> None:
    """Few enough tokens have a large KL."""
    kv_quality.check("kl_tail")


def test_perplexity(kv_quality: CellQuality) -> None:
    """The perplexity moved neither up nor down by more than its budget."""
    kv_quality.check("ln_ppl_ratio")


def test_top1_agreement(kv_quality: CellQuality) -> None:
    """Few enough tokens changed their most likely successor."""
    kv_quality.check("top1_flips")
