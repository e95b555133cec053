"""Shards of a run, put together again, are the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.run import start

from pytest_kvquant.results.result import Result
from pytest_kvquant.session.account import figures_per_cell
from pytest_kvquant.session.merge import merge

BRIEF: dict[str, Any] = {
    "ctx": 64,
    "chunks": 3,
    "decode": 0,
    "trajectory": 0,
    "probe": "off",
    "coverage": "off",
}


def measure(folder: Path, **settings: Any) -> Result:
    session = start(folder, types=("f16", "q4_0"), speed="off", **BRIEF, **settings)
    assert session.account.cells_in_run == 4
    for pair in session.pairs:
        session.measure(pair)
    return session.result()


def test_merged_shards_are_the_whole(tmp_path: Path) -> None:
    whole = measure(tmp_path)
    parts = [measure(tmp_path, shard=f"{number}/2") for number in (1, 2)]
    assert sum(len(part.cells) for part in parts) == len(whole.cells) + 1
    merged = {cell.pair: cell for cell in merge([("a", parts[0]), ("b", parts[1])]).cells}
    assert set(merged) == {cell.pair for cell in whole.cells}
    for cell in whole.cells:
        again = merged[cell.pair]
        assert (again.verdict, again.gates, again.not_significant) == (
            cell.verdict,
            cell.gates,
            cell.not_significant,
        )
        assert (again.digests, again.quality) == (cell.digests, cell.quality)
        assert 0 < len(cell.gates) <= figures_per_cell()  # chance is corrected for no fewer
