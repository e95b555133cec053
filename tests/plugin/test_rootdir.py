"""pytest takes the word after an option that it does not know yet for a path of tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_kvquant.data import EMBEDDED_MODEL


@pytest.mark.parametrize(("word", "moved"), [("--kv-model ", True), ("--kv-model=", False)])
def test_a_model_elsewhere_that_moved_the_rootdir_is_told(
    tmp_path: Path, word: str, moved: bool
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pytest.ini").write_text("[pytest]\n")
    model = tmp_path / "there" / "my model.gguf"
    shutil.copyfile(EMBEDDED_MODEL, model)
    words = f"{word}{model}".split(" ", 1) if moved else [f"{word}{model}"]
    plugin = ["-m", "pytest", "--kv-matrix", "--kv-pairs=q8_0/q8_0", "--collect-only", "-q"]
    done = subprocess.run(
        [sys.executable, *plugin, *words], cwd=tmp_path / "here", capture_output=True, text=True,
        check=False, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = f"made {tmp_path / 'there'} its rootdir; write --kv-model=PATH" in done.stdout
    assert told == moved, done.stdout
