"""The examples of docs/api.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_kvquant import testing

API = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def test_every_example_passes(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", API.read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 2
    project = testing.Project(tmp_path)
    for number, block in enumerate(blocks):
        project.file(f"test_block_{number}.py", block)
    ran = project.run(".", "--kv-pairs=q8_0/q8_0", timeout=400)
    tests = sum(block.count("\ndef test_") for block in blocks)
    per_pair = blocks[0].count("\ndef test_")
    assert f"{tests + per_pair} passed" in ran.text, ran.text
