"""Run pytest as a user does: another process, a folder of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

SMALL = (
    "--kv-ctx=64", "--kv-chunks=2", "--kv-order=sequential", "--kv-speed=off", "--kv-decode=0",
    "--kv-trajectory=0", "--kv-probe=off", "--kv-coverage=off", "--kv-recall=0",
)  # fmt: skip
"""A cell in a second. With two chunks most gates stay open; figures are figures."""

CI_VARIABLES = ("CI", "BUILD_NUMBER", "GITHUB_STEP_SUMMARY", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")


COUNTS = re.compile(r"\d+ (passed|failed|skipped|deselected|error|warning)s?\b.* in [\d.]+s")


class Outcome(NamedTuple):
    """How a run ended and what it said."""

    code: int
    text: str

    @property
    def counts(self) -> str:
        """pytest's line of counts."""
        found = [line for line in self.text.splitlines() if COUNTS.search(line)]
        return found[-1] if found else ""


def pytest_in(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> Outcome:
    """Run ``pytest ARGUMENTS`` in ``folder``; standard output and error together.

    Args:
        timeout: seconds that it may take.
    """
    shell = {name: value for name, value in os.environ.items() if name not in CI_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=folder,
        env={**shell, "COLUMNS": "120", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
    )
    return Outcome(done.returncode, done.stdout)


def figures(path: Path) -> dict[str, Any]:
    """Everything measured that a ``--kv-json`` file says, by pair; no times."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {
        cell["pair"]: (cell["quality"], cell["per_chunk"], cell["digests"], cell["gates"])
        for cell in cells
    }
