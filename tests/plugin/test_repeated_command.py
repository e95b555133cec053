"""The line that repeats a cell can be typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.outer import pytest_in

from pytest_kvquant.session.command_line import typed_options

assert typed_options, "what the probe asks"

PROBE = """
import json
from pytest_kvquant.session.command_line import typed_options

def pytest_sessionstart(session):
    words = typed_options(session.config, None)
    given = {name: value for name, value in vars(session.config.option).items()
             if name.startswith("kv_") and value is not None}
    print("said " + json.dumps([words, given]))
"""


@pytest.mark.parametrize(
    "value", ["-np 8", "-sm none", "-nkvo", "--mlock", "--rope-scaling yarn", "-ot 'a b=CPU'"]
)
def test_values_that_begin_with_a_dash_come_back(value: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(PROBE)

    def said(*words: str) -> tuple[list[str], dict[str, object]]:
        ran = pytest_in(tmp_path, "-s", "-q", *words)
        (line,) = (one for one in ran.text.splitlines() if one.startswith("said "))
        repeated, given = json.loads(line.removeprefix("said "))
        return repeated, given

    repeated, given = said(f"--kv-llama={value}", "--kv-ctx", "64", "--kv-gpu-layers=-1")
    assert given["kv_llama"] == value
    assert said(*repeated) == (repeated, given)
