"""A folder in which a run with a planted fault can be tried."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.results.file import read
from pytest_kvquant.results.result import Result
from pytest_kvquant.testing.faults import FAULTS, PLANT

QUICK = (
    "--kv-ctx=64", "--kv-chunks=4", "--kv-order=sequential", "--kv-speed=off", "--kv-decode=0",
    "--kv-trajectory=0", "--kv-probe=off", "--kv-coverage=off", "--kv-recall=0",
)  # fmt: skip
"""Options under which a pair of the packaged model takes about a second."""


class Ran(NamedTuple):
    """How a run of a project ended."""

    code: int
    """pytest's exit code."""
    text: str
    """Standard output and error together."""
    result: Result | None
    """What it measured; ``None`` where it did not start."""

    def verdict(self, pair: str) -> str:
        """The verdict of a pair.

        Raises:
            LookupError: the run measured no such pair; the text of the run says why.
        """
        for cell in self.result.cells if self.result is not None else ():
            if cell.pair == pair:
                return cell.verdict
        raise LookupError(f"the run measured no {pair}:\n{self.text}")


class Project:
    """A folder in which ``pytest --kv-matrix`` can run, with files of one's own.

    Args:
        folder: an empty one, as ``tmp_path``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment: dict[str, str] = {}
        self._config = ""

    def config(self, text: str) -> None:
        """The content of ``kvquant.toml``; its ``[environment]`` is made here."""
        self._config = text

    def file(self, name: str, text: str) -> Path:
        """A file of the project: a test, a module."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def plant(self, fault: str) -> None:
        """Give the workers of the runs to come a fault.

        Args:
            fault: a name of :data:`FAULTS`, or Python that defines the same functions.
        """
        code = FAULTS.get(fault, fault)
        path = self.file("planted_fault.py", f"import numpy as np\n\n\n{code}{PLANT}")
        self._environment[HOOK] = str(path)

    def run(self, *options: str, quick: bool = True, timeout: float = 300) -> Ran:
        """Run ``pytest --kv-matrix`` here.

        Args:
            options: more options and paths.
            quick: begin with :data:`QUICK`; options given here win.
            timeout: seconds.
        """
        lines = "\n".join(f'{name} = "{value}"' for name, value in self._environment.items())
        self.file("kvquant.toml", f"{self._config}\n[environment]\n{lines}\n")
        json = self.folder / "testing-result.json"
        json.unlink(missing_ok=True)
        words = [*(QUICK if quick else ()), f"--kv-json={json}", "--kv-store=store", *options]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kv-matrix", *words],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "COLUMNS": "120"}, check=False, timeout=timeout,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, read(json) if json.exists() else None)
