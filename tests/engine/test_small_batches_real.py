"""Any legal n_batch and n_ubatch: what is measured beside the chunks fits itself to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.run import cells_of, measure

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
