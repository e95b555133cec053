"""A real fault of a real build: the TurboQuant fork of May 2026 dies on a shift of a quantized K.

``KVQUANT_FORK_LIB`` and ``KVQUANT_FORK_PYTHON`` name the build and an interpreter whose bindings
fit it; without them these tests are skipped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.outer import Outcome, pytest_in

LIBRARY, PYTHON = os.environ.get("KVQUANT_FORK_LIB"), os.environ.get("KVQUANT_FORK_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (LIBRARY and PYTHON), reason="KVQUANT_FORK_LIB and KVQUANT_FORK_PYTHON name no build"
    ),
]

SHORT = ("--kv-ctx=128", "--kv-chunks=4", "--kv-speed=off", "--kv-decode=0", "--kv-trajectory=0",
         "--kv-probe=off", "--kv-recall=0", "--kv-coverage=standard", "--kv-zoo=off",
         "--kv-pairs=q8_0/turbo4,f16/turbo4")  # fmt: skip
SHIFTS = '["operations.shift_head", "operations.shift_middle"]'


def run(folder: Path, declared: str) -> tuple[Outcome, dict[str, Any]]:
    (folder / "kvquant.toml").write_text(declared, encoding="utf-8")
    report = folder / "r.json"
    found = pytest_in(
        folder, "--kv-matrix", *SHORT, "-k", "test_operations", f"--kv-lib={LIBRARY}",
        f"--kv-python={PYTHON}", f"--kv-store={folder / 's'}", f"--kv-json={report}",
        "-p", "no:cacheprovider", "-v",
    )  # fmt: skip
    cells = {cell["pair"]: cell for cell in json.loads(report.read_text())["cells"]}
    return found, cells


def test_it_is_told_for_the_quantized_k_alone_and_in_words_of_the_api(tmp_path: Path) -> None:
    found, cells = run(tmp_path, "")
    assert found.code == 1, found.text
    assert "test_operations[q8_0/turbo4] FAILED" in found.text
    for pair in ("f16/f16", "f16/turbo4"):
        assert f"test_operations[{pair}] PASSED" in found.text
    assert "crashed in llama_decode" in found.text
    assert "llama_memory_seq_add(0, 40, -1, -36)" in found.text
    dead = [one["name"] for one in cells["q8_0/turbo4"]["kernels"]["scenarios"]
            if one["verdict"] == "crashed"]  # fmt: skip
    assert dead == ["shift_head", "shift_middle"]


def test_declared_the_fork_is_green(tmp_path: Path) -> None:
    found, _ = run(tmp_path, f'[expect."q8_0/*"]\nfails = {SHIFTS}\n')
    assert found.code == 0, found.text
    assert "fail as declared" in (tmp_path / "r.json").read_text()


def test_declared_where_it_does_not_happen_is_told(tmp_path: Path) -> None:
    found, _ = run(tmp_path, f'[expect."*/turbo4"]\nfails = {SHIFTS}\n')
    assert found.code == 1
    assert "test_operations[q8_0/turbo4] PASSED" in found.text
    assert "test_operations[f16/turbo4] FAILED" in found.text
    assert "does not any more" in found.text


def test_declared_for_another_device_is_not_declared_here(tmp_path: Path) -> None:
    found, _ = run(tmp_path, f'[expect."q8_0/*"]\nfails = {SHIFTS}\ndevice = "MTL*"\n')
    assert found.code == 1
    assert "test_operations[q8_0/turbo4] FAILED" in found.text
