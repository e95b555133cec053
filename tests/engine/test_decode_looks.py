"""A decode path that few tokens leave open is read further; one that they decide is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run import run

from pytest_kvquant.quality import paths


def test_more_chunks_are_decoded_where_the_first_leave_a_pair_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "DECODE_CHUNKS", 3)
    shape = {"chunks": 12, "decode": 24, "trajectory": 0, "recall": 0, "healthy": "on"}

    cells = run(tmp_path, "f16/f16 q4_0/q4_0", **shape)

    tokens = {pair: cell.quality.decode.tokens for pair, cell in cells.items()}
    assert tokens == {"f16/f16": 24, "q4_0/q4_0": 96}
    cell = cells["q4_0/q4_0"]
    (gate,) = (one for one in cell.gates if one.name == "decode_kl_ratio")
    assert gate.chunks == 12
    assert gate.verdict == "pass"
    assert cells["f16/f16"].quality.decode.kl_mean == 0
    assert 0.3 < cell.quality.decode.kl_mean / cell.quality.prefill.kl_mean < 3


@pytest.mark.slow
def test_the_second_look_is_taken_from_the_store_when_it_was_taken_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "DECODE_CHUNKS", 3)
    shape = {"chunks": 12, "decode": 24, "trajectory": 0, "recall": 0}

    first, again = (run(tmp_path, "q4_0/q4_0", **shape)["q4_0/q4_0"] for _ in range(2))

    assert first.healthy.decode_kl_mean == again.healthy.decode_kl_mean
    assert first.quality.decode.kl_mean == again.quality.decode.kl_mean
