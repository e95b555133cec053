"""Pairs on tiny models of other head sizes, groupings and features (--kv-zoo)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_kvquant.outcomes.zoo import ZooMember


def test_zoo(kv_zoo: ZooMember) -> None:
    """Every operation of attention is right on this geometry."""
    kv_zoo.check()
