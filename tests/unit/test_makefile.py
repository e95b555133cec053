"""What ``make`` says before it sets anything up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_apple_s_python_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """It is 3.9."""
    old = tmp_path / "python3"
    pretend = "import sys; sys.version_info, sys.version = (3, 9, 6), '3.9.6 (default)'"
    old.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || exit 9\n'
        f'exec {sys.executable} -c "{pretend}; exec(sys.argv[1])" "$2"\n',
        encoding="ascii",
    )
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Python 3.11 or later is needed" in done.stderr
    assert "is 3.9.6" in done.stderr
    assert not (tmp_path / "venv").exists()
