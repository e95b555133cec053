"""Every K/V pair is still what was accepted; ``--snapshot-update`` accepts what it is now."""

from __future__ import annotations

from pytest_kvquant.outcomes.baseline import CellBaseline
from pytest_kvquant.outcomes.quality import CellQuality


def test_baseline(kv_quality: CellQuality, kv_baseline: CellBaseline) -> None:
    """The figures have not drifted from the baseline, neither up nor down."""
    kv_quality.require_measured()
    kv_baseline.check()
