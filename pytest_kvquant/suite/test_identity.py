"""Every K/V pair is what its name says, and ran where it was asked to."""

from __future__ import annotations

from pytest_kvquant.outcomes.declared import declared_tests
from pytest_kvquant.outcomes.quality import CellQuality


def test_measured(kv_quality: CellQuality) -> None:
    """The pair was measured: no crash, no hang, no other types, every logit a number."""
    kv_quality.require_measured()


globals().update(declared_tests("identity"))
