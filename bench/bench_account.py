"""Where the seconds of a run go: the embedded model, one of 15 M weights, one of a gigabyte."""

from __future__ import annotations

from typing import Any

import pytest
from support.tinygguf import Tiny, write

from pytest_kvquant.results.result import Result

PAIRS = ("--kv-pairs", "q8_0/q8_0,q8_0/q4_0", "--kv-speed", "off")

GIGABYTE = Tiny(n_layer=9, n_embd=2048, n_head=16, n_head_kv=4, n_ff=8192, n_vocab=32_768)


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for random weights, and few tokens of them."""
    model = write(tmp_path_factory.mktemp("large") / "model.gguf", GIGABYTE)
    assert model.stat().st_size > 1e9
    return ["--kv-model", str(model), "--kv-ctx", "128", "--kv-chunks", "4"]


@pytest.mark.parametrize("model", ["embedded", "reference_model", "large_model"])
def test_where_the_seconds_go(
    benchmark: Any, run: Any, request: pytest.FixtureRequest, model: str
) -> None:
    """Parts and scopes of a whole run without speed; both sum to the wall time."""
    options = [] if model == "embedded" else request.getfixturevalue(model)
    result: Result = benchmark.pedantic(run, (*options, *PAIRS), rounds=1)
    assert result.timing is not None
    wall, parts, scopes = result.timing.wall, result.timing.parts, result.timing.scopes
    for table in (parts, scopes):
        assert sum(table.values()) == pytest.approx(wall)
        benchmark.extra_info |= table
    print(f"\n{result.model.name}, {wall:.1f} s")
    for name, table in (("into", parts), ("for", scopes)):
        told = (f"{part} {spent:.1f} s ({spent / wall:.0%})" for part, spent in table.items())
        print(f"  {name} {', '.join(told)}")
