"""kvquant ci: a new user's way to the gate, without a checkout of this project."""

from __future__ import annotations

import os
import runpy
import sys
import tomllib
import types
from pathlib import Path

import pytest

from pytest_kvquant.cli.ci import GATES
from pytest_kvquant.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", GATES)
def test_a_gate_is_written_to_its_usual_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ci", name]) == 0
    written, kept = Path(GATES[name].to), ROOT / "docs" / "ci" / GATES[name].file
    assert written.read_bytes() == kept.read_bytes()
    assert os.access(written, os.X_OK) == (name == "pre-push")
    assert str(written) in capsys.readouterr().out
    written.write_text("mine")
    assert main(["ci", name]) == 2
    assert "--force writes over it" in capsys.readouterr().err
    assert written.read_text() == "mine"


def test_a_wheel_has_the_files_and_an_editable_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    path = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["path"]
    interface = types.ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    hook = runpy.run_path(str(ROOT / path))["DocsInWheel"]()
    for version, found in (("standard", {"docs/ci": "pytest_kvquant/ci"}), ("editable", {})):
        data: dict[str, dict[str, str]] = {"force_include": {}}
        hook.initialize(version, data)
        assert data["force_include"] == found
    assert (ROOT / "docs" / "ci").is_dir()
