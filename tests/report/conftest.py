"""One small real run, and larger results made from its cells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.matrix import TYPES, enlarge

from pytest_kvquant.results.file import read
from pytest_kvquant.results.result import Result


class Run(NamedTuple):
    """What a run left behind."""

    folder: Path
    output: str

    @property
    def result(self) -> Result:
        return read(self.folder / "r.json")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A matrix of four pairs, with every file that can be asked for, as on GitHub."""
    folder = tmp_path_factory.mktemp("run")
    words = (
        "--kv-matrix --kv-pairs q8_0/q8_0,q8_0/q4_0,q4_0/q8_0 --kv-ctx 128 --kv-chunks 3 "
        "--kv-speed off --kv-trajectory 0 --kv-json r.json --kv-report r.html --kv-strict "
        "--junit-xml j.xml --kv-store store -k quality -p no:cacheprovider"
    )
    (folder / "step.md").write_text("# of another step\n")
    here = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(folder / "step.md")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words.split()],
        cwd=folder, env={**os.environ, **here}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return Run(folder, done.stdout)


@pytest.fixture(scope="session")
def result(run: Run) -> Result:
    """The result of the run."""
    return run.result


@pytest.fixture(scope="session")
def matrix(result: Result) -> Callable[..., Result]:
    """A result of any size: real cells, their figures scaled by the types of the pair."""

    def build(*, types: tuple[str, ...] = TYPES, depths: int = 0) -> Result:
        return enlarge(result, types=types, depths=depths)

    return build
