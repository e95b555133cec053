"""The tables of the simulated backend are those of the sources, where there are any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metal.build import CannotBuild, downloaded, ggml_folder
from metal.tables import FORK, STOCK, from_source


def test_stock_and_fork_differ_as_the_audit_says() -> None:
    assert ("f16", "q8_0") not in STOCK.attention
    assert ("q8_0", "turbo4") in FORK.attention
    assert ("f16", "turbo4") not in FORK.attention
    assert "turbo4" not in STOCK.writes


def test_the_table_is_that_of_the_source() -> None:
    try:
        folder = ggml_folder(os.environ)
    except CannotBuild as error:
        pytest.skip(str(error))
    source = folder / "src" / "ggml-metal" / "ggml-metal-device.m"
    if not source.is_file():
        pytest.skip(f"{source} is not there")
    text = source.read_text(encoding="utf-8")
    assert from_source(text) == (FORK if "TURBO4_0" in text else STOCK)


def test_a_source_written_in_another_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="substring not found"):
        from_source("int main(void) { return 0; }")
    assert downloaded().name.startswith("ggml-")
