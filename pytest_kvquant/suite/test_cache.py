"""What every cache stores, against the reference quantizer of its type."""

from __future__ import annotations

from pytest_kvquant.outcomes.quality import CellQuality


def test_cache_contents(kv_quality: CellQuality) -> None:
    """The first layer holds f16's rows as the library's reference quantizer writes them."""
    kv_quality.check_fact("contents")
