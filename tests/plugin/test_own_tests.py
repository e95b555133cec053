"""The public fixtures and the marker, as a project's own tests use them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.outer import pytest_in

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_tests"
BRIEF = (
    "--kv-decode=0",
    "--kv-trajectory=0",
    "--kv-probe=off",
    "--kv-coverage=off",
    "--kv-store=store",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own") / "project"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_the_example_runs(folder: Path) -> None:
    outcome = pytest_in(folder, "--kv-matrix", "test_my_cache.py", "--kv-json=a.json", *BRIEF)
    assert outcome.code == 0, outcome.text
    # f16/f16 and two more: 1 of q8_0/*, 1 with budgets, 3 of any pair, 1 of the whole run.
    assert "6 passed" in outcome.text
    cells = json.loads((folder / "a.json").read_text())["cells"]
    assert [cell["pair"] for cell in cells] == ["f16/f16", "q8_0/q8_0", "q4_0/q4_0"]


def test_without_the_switch_the_example_is_skipped(folder: Path) -> None:
    outcome = pytest_in(folder, "test_my_cache.py")
    assert outcome.code == 0, outcome.text
    assert "4 skipped" in outcome.text


def test_budgets_of_a_test_are_judged_by_the_same_rules(folder: Path) -> None:
    (folder / "test_tight.py").write_text(
        """
import pytest

@pytest.mark.kv(pairs="q4_0/*", budgets={"kl_mean": 1e-6})
def test_tight(kv_quality):
    kv_quality.check("kl_mean")

@pytest.mark.kv(pairs="q4_0/*")
def test_as_configured(kv_quality):
    kv_quality.check("kl_mean")
"""
    )
    outcome = pytest_in(folder, "--kv-matrix", "test_tight.py", *BRIEF)
    assert outcome.code == 1, outcome.text
    assert "1 failed" in outcome.text
    assert "against a budget of 1.0e-06 nats" in outcome.text
    assert "FAILED test_tight.py::test_tight[q4_0/q4_0]" in outcome.text


WRONG = {
    '"q8_0/*"': "by name",
    'pairs=["q8_0"]': "write K/V",
    'budgets={"kl": 1}': "kl",
    'budgets={"kl_mean": -1}': "from 0 up",
    'pears="q8_0/*"': "unknown key 'pears'; did you mean 'pairs'?",
    'budgets={"kl_mean": "x"}': "budgets.kl_mean: 'x' stands where a number belongs.",
}


def test_a_marker_that_cannot_be_meant_is_told_at_collection(folder: Path) -> None:
    for number, arguments in enumerate(WRONG):
        (folder / f"test_wrong_{number}.py").write_text(
            f"import pytest\n\n@pytest.mark.kv({arguments})\ndef test_it(kv_cell):\n    pass\n"
        )
    files = [f"test_wrong_{number}.py" for number in range(len(WRONG))]
    outcome = pytest_in(folder, "--kv-matrix", *files, "--collect-only", *BRIEF)
    assert outcome.code == 2, outcome.text
    assert f"{len(WRONG)} errors" in outcome.text
    for number, says in enumerate(WRONG.values()):
        told = outcome.text.partition(f"test_wrong_{number}.py::test_it: ")[2].partition("\n")[0]
        assert says in told
    assert "Traceback" not in outcome.text
