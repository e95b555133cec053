"""Every K/V pair is what its name says, and ran where it was asked to."""

from __future__ import annotations

from pytest_kvquant.outcomes.quality import CellQuality


def test_measured(kv_quality: CellQuality) -> None:
    """The pair was measured: no crash, no hang, no other types, every logit a number."""
    kv_quality.require_measured()


def test_effective_types(kv_quality: CellQuality) -> None:
    """The cache holds the types that were asked for, on every layer."""
    kv_quality.check_fact("types")


def test_placement(kv_quality: CellQuality) -> None:
    """The KV cache lies on the device that was asked for."""
    kv_quality.check_fact("placement")


def test_distinct(kv_quality: CellQuality) -> None:
    """No other pair has the very same logits: the option did something."""
    kv_quality.check_fact("distinct")


def test_active(kv_quality: CellQuality) -> None:
    """A quantized pair shows more than the machine's noise: the quantization is on."""
    kv_quality.check_fact("active")


def test_measurable(kv_quality: CellQuality) -> None:
    """The budget can be told from the machine's noise."""
    kv_quality.check_fact("measurable")
