"""The workflows in docs/ci: valid by GitHub's own schema, with options that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_kvquant.config.options import OPTIONS

CI = Path(__file__).resolve().parents[2] / "docs" / "ci"
WORKFLOWS = sorted(CI.glob("*.yml"))


def test_workflows_are_valid_by_the_schema_of_github(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    assert WORKFLOWS
    good = subprocess.run([*check, *WORKFLOWS], capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout + good.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    bad = subprocess.run([*check, wrong], capture_output=True, text=True, check=False)
    assert bad.returncode != 0


@pytest.mark.parametrize("path", [*WORKFLOWS, CI / "README.md"], ids=lambda path: path.name)
def test_every_option_named_there_exists(path: Path) -> None:
    named = set(re.findall(r"--kv-[a-z-]+", path.read_text(encoding="utf-8")))
    known = {option.flag for option in OPTIONS} | {"--kv-matrix", "--kv-config"}
    assert named
    assert named <= known


def test_the_merge_step_is_a_command_of_kvquant() -> None:
    from pytest_kvquant.cli.main import _parser

    (line,) = re.findall(r"run: kvquant (merge .*)", (CI / "nightly.yml").read_text())
    parsed = _parser().parse_args(shlex.split(line))
    assert parsed.command == "merge"
    assert parsed.out == Path("merged.json")
