"""Compiled loops are found again from another folder, and nothing fails where none can be kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pytest_kvquant
from pytest_kvquant.numerics.compiled import ByContent

PACKAGE = Path(pytest_kvquant.__file__).parent

SCRIPT = """
from pytest_kvquant.numerics.compiled import ByContent, cached
from numba import njit

@cached
@njit
def twice(x):
    return 2 * x

print(twice(21), sum(twice.stats.cache_hits.values()))
"""


def run(folder: Path, cache: Path) -> str:
    (folder / "own.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "own.py"],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "HOME": str(cache),
             "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_another_folder_finds_what_was_compiled(tmp_path: Path) -> None:
    one, two, cache = tmp_path / "one", tmp_path / "two", tmp_path / "cache"
    for folder in (one, two, cache):
        folder.mkdir()
    assert run(one, cache) == "42 0"
    assert run(one, cache) == "42 1"
    if sys.platform == "linux":  # elsewhere the user's cache is not where this test says
        shutil.rmtree(one / "__pycache__", ignore_errors=True)
        assert run(two, cache) == "42 1"
        assert not (two / "__pycache__").exists()


def test_another_version_of_numpy_finds_nothing_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What NumPy 2 has pickled, NumPy 1.26 cannot read."""

    def here() -> str:
        return ByContent(run, __file__).get_cache_path()

    before = here()
    assert here() == before
    monkeypatch.setattr(np, "__version__", "1.26.0")
    assert here() != before


def test_where_nothing_can_be_kept_it_is_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "__pycache__").write_text("a file is in the way")
    assert run(folder, Path("/dev/null/nowhere")) == "42 0"


def test_records_and_sessions_import_neither_scipy_nor_numba() -> None:
    script = (
        "import sys, pytest_kvquant.session.start, pytest_kvquant.cli.doctor_examine; "
        "print([name for name in ('scipy', 'numba', 'syrupy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        cwd=PACKAGE.parent,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
