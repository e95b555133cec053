"""What the benchmarks share: the larger model where it is, and a way to run the whole thing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvquant.results.file import read
from pytest_kvquant.results.result import Result

SHARED = Path(__file__).resolve().parents[2] / "shared"
Run = Callable[..., Result]


@pytest.fixture(scope="session")
def reference_model() -> list[str]:
    """Options for the 15 M model on wikitext-2, 16 sequential chunks of 512 tokens."""
    model = SHARED / "models" / "kvq-ref-15m.q8_0.gguf"
    corpus = SHARED / "corpora" / "wikitext-2.test.txt"
    if not (model.is_file() and corpus.is_file()):
        pytest.skip("the larger model and corpus (../shared) are not here")
    return [
        "--kv-model", str(model), "--kv-corpus", str(corpus),
        "--kv-ctx", "512", "--kv-chunks", "16", "--kv-order", "sequential",
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``pytest --kv-matrix`` as a user would, in an empty folder, and read its result."""

    def run_matrix(*options: str, name: str = "result") -> Result:
        out = tmp_path / f"{name}.json"
        command = [
            sys.executable, "-m", "pytest", "-q", "--kv-matrix", "--kv-json", str(out),
            "--kv-store", str(tmp_path / "store"), *options,
        ]  # fmt: skip
        folder = tmp_path / "empty"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False
        )
        assert out.exists(), done.stdout + done.stderr
        return read(out)

    return run_matrix
