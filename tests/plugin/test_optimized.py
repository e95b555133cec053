"""``python -OO`` (``PYTHONOPTIMIZE=2``): no assertion and no docstring is there, all else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.outer import Outcome, figures, pytest_in

PAIR = "q4_0/q8_0"
EVERYTHING = (
    "--kv-matrix", "--kv-ctx=64", "--kv-chunks=2", "--kv-speed=off", "--kv-decode=8",
    "--kv-trajectory=4", "--kv-coverage=minimal", f"--kv-pairs={PAIR}", "-p", "no:cacheprovider",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("optimized")


def run(folder: Path, *arguments: str, level: str) -> Outcome:
    return pytest_in(
        folder, *EVERYTHING, "--kv-store=store", *arguments, environment={"PYTHONOPTIMIZE": level}
    )


@pytest.mark.slow
def test_figures_and_verdicts_are_those_of_plain_python(folder: Path) -> None:
    (folder / "strict.toml").write_text("[budgets.'q4_0/*']\nkl_mean = 1e-9\n")
    runs = {
        level: run(folder, "--kv-config=strict.toml", f"--kv-json={level}.json", level=level)
        for level in ("0", "2")
    }
    for level, ended in runs.items():
        assert ended.code == 1, ended.text
        assert f"{PAIR}: mean KL fails:" in ended.text
        assert "INTERNALERROR" not in ended.text
        assert "selected:" not in ended.text, level
    assert figures(folder / "0.json") == figures(folder / "2.json")
    verdicts = [
        [(cell["verdict"], [check["verdict"] for check in cell["checks"]]) for cell in cells]
        for level in ("0", "2")
        for cells in [json.loads((folder / f"{level}.json").read_text())["cells"]]
    ]
    assert verdicts[0] == verdicts[1]


@pytest.mark.slow
def test_baselines_are_accepted_and_compared(folder: Path) -> None:
    base = f"--kv-baselines={folder / 'baselines'}"
    accepted = run(folder, base, "-k", "test_baseline and f16/f16", "--snapshot-update", level="2")
    assert "1 snapshot generated" in accepted.text, accepted.text
    same = run(folder, base, "-k", "test_baseline and f16/f16", level="2")
    assert "1 snapshot passed" in same.text, same.text
    (path,) = (folder / "baselines").rglob("f16-f16.json")
    path.write_text("{}")
    damaged = run(folder, base, "-k", "test_baseline and f16/f16", level="2")
    assert damaged.code == 1, damaged.text
