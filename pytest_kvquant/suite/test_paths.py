"""What the batched figures do not touch: one token at a time, batch shapes, save and restore."""

from __future__ import annotations

from pytest_kvquant.outcomes.quality import CellQuality


def test_decode_path(kv_quality: CellQuality) -> None:
    """Mean KL with one token at a time is within its budget."""
    kv_quality.check("decode_kl_mean")


def test_greedy_trajectory(kv_quality: CellQuality) -> None:
    """Greedy text agrees with f16's for long enough."""
    kv_quality.check_fact("trajectory")


def test_batch_shapes(kv_quality: CellQuality) -> None:
    """The same tokens give the same logits in every batch shape."""
    kv_quality.check_fact("shapes")


def test_save_restore(kv_quality: CellQuality) -> None:
    """A saved and restored sequence goes on as if uninterrupted."""
    kv_quality.check_fact("restore")
