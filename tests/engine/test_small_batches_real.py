"""Any legal n_batch and n_ubatch: what is measured beside the chunks fits itself to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.run import cells_of, measure, start

from pytest_kvquant.matrix import Pair

PAIR = "q4_0/q8_0"
SHORT: dict[str, Any] = {"chunks": 2, "decode": 8, "trajectory": 4, "threads": 1}


@pytest.mark.parametrize(("ctx", "batch", "ubatch"), [(128, 32, 16), (64, 7, 3), (32, 1, 1)])
def test_nothing_of_a_cell_is_lost(tmp_path: Path, ctx: int, batch: int, ubatch: int) -> None:
    small = cells_of(
        measure(
            tmp_path, PAIR, ctx=ctx, batch=batch, ubatch=ubatch, probe="always",
            coverage="minimal", recall=ctx, **SHORT,
        )
    )  # fmt: skip
    usual = cells_of(measure(tmp_path, PAIR, ctx=ctx, probe="off", **SHORT))
    for name in ("f16/f16", PAIR):
        one, other = small[name], usual[name]
        assert one.verdict not in ("crashed", "error", "non-finite"), one.message
        assert one.quality is not None
        assert other.quality is not None
        assert one.quality.prefill.ppl == pytest.approx(other.quality.prefill.ppl, rel=0.03)
        assert one.quality.decode is not None
        assert one.trajectory is not None
        # Two sequences of a whole chunk do not fit into such a batch.
        assert {*one.shapes, "several sequences"} == set(other.shapes)
        assert {"attention", "cache_writes", "contents"} <= {check.name for check in one.checks}
    assert not [check.text for check in small["f16/f16"].checks if check.verdict == "fail"]


def test_more_chunks_at_once_than_a_physical_batch_has_tokens(tmp_path: Path) -> None:
    cells = cells_of(
        measure(tmp_path, PAIR, ctx=32, ubatch=8, probe="off", **{**SHORT, "chunks": 64})
    )
    assert cells["f16/f16"].verdict == "pass"
    assert cells[PAIR].quality is not None


def test_the_largest_context_is_found(tmp_path: Path) -> None:
    """It is filled by many sequences: no more of them than a batch holds."""
    session = start(
        tmp_path, pairs=(PAIR,), ctx=64, batch=32, ubatch=16, ceiling_max=512, threads=1
    )
    found = session.speed.ceiling(Pair.parse(PAIR))
    assert found.tokens == 512, found.line
    assert found.sequences == 16
