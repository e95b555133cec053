"""Results of every earlier version can be read; golden files of each are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_kvquant.errors import ResultError
from pytest_kvquant.results.file import decode, read
from pytest_kvquant.results.result import SCHEMA
from pytest_kvquant.results.upgrade import STEPS

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "results").glob("*.json"))


def test_a_golden_file_of_every_earlier_schema_is_kept() -> None:
    kept = {json.loads(path.read_text())["schema"] for path in GOLDEN}
    assert kept == STEPS.keys()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_an_older_result_is_read_with_all_that_it_says(path: Path) -> None:
    before, after = json.loads(path.read_text()), read(path)
    assert after.schema == SCHEMA
    assert [cell.pair for cell in after.cells] == [cell["pair"] for cell in before["cells"]]
    for old, new in zip(before["cells"], after.cells, strict=True):
        assert new.not_significant == tuple(old["alone"])
        assert new.census is not None
        assert new.census.compression_expected == old["census"]["compression"]
        assert new.quality is not None
        assert new.quality.prefill.kl_mean == old["quality"]["prefill"]["kl_mean"]
    timed = zip(before["speed"], after.speed, strict=True)
    for old, new in ((a, b) for x, y in timed for a, b in zip(x["tests"], y.tests, strict=True)):
        assert new.iqr_over_median == old["spread"]
    old, new = before["advice"][0]["candidates"][0], after.advice[0].candidates[0]
    assert new.compression_measured == old["compression"]


@pytest.mark.parametrize("schema", ["pytest-kvquant/99", 7])
def test_a_later_schema_is_refused_by_name(schema: object) -> None:
    table = json.loads(GOLDEN[0].read_text()) | {"schema": schema}
    with pytest.raises(ResultError, match=f"schema '{schema}'"):
        decode(json.dumps(table).encode(), "later.json")


@pytest.mark.parametrize("data", [b"[]", b"7", b"{}", b"{", b"\xff"])
def test_what_is_no_result_is_said_in_one_sentence(data: bytes) -> None:
    with pytest.raises(ResultError, match=r"^x\.json is not a result of pytest-kvquant: .*\.$"):
        decode(data, "x.json")
