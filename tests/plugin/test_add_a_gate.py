"""A gate is one file: declared in a package of one's own, it is collected, budgeted, reported."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.outer import SMALL, Outcome, pytest_in

GATE = '''
import numpy as np

from pytest_kvquant.checks.budget import Budget
from pytest_kvquant.checks.declaration import gate
from pytest_kvquant.checks.kl_mean import judge_kl_mean


def p99(tokens):
    return float(np.quantile(tokens.kl, 0.99))


@gate("kl_q99", title="99th percentile of KL", test="test_kl_q99",
      budget=Budget("kl_q99", "nats", default=5.0), per_chunk=p99)
def kl_q99(seen, given):
    """One token in a hundred may have a KL of this much.

    Why: agents act on single tokens.
    """
    return judge_kl_mean(seen["kl_q99"], given.budgets["kl_q99"], given.rules, name="kl_q99",
                         title="99th percentile of KL")
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project beside an installed package with one gate and its entry point."""
    root = tmp_path_factory.mktemp("gate")
    site = root / "site"
    (site / "their_checks-1.0.dist-info").mkdir(parents=True)
    (site / "their_checks.py").write_text(GATE)
    (site / "their_checks-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: their-checks\nVersion: 1.0\n"
    )
    (site / "their_checks-1.0.dist-info" / "entry_points.txt").write_text(
        "[kvquant.checks]\ntheirs = their_checks\n"
    )
    return root


def run(project: Path, *arguments: str) -> Outcome:
    path = os.pathsep.join([str(project / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return pytest_in(project, "--kv-matrix", "-v", *SMALL, "--kv-pairs=q4_0/q4_0",
                     "--kv-store=store", *arguments, environment={"PYTHONPATH": path})  # fmt: skip


def test_a_gate_of_another_package_is_collected_and_reported(project: Path) -> None:
    ran = run(project, "-k", "kl_q99 or divergence", "--kv-json=r.json")
    assert "test_kl_q99[q4_0/q4_0]" in ran.text, ran.text
    cell = json.loads((project / "r.json").read_text())["cells"][1]
    gate = next(one for one in cell["gates"] if one["name"] == "kl_q99")
    assert gate["budget"] == 5.0
    assert 0 < gate["figure"] < 5.0
    assert len(cell["per_chunk"]["kl_q99"]) == 2
    assert gate["figure"] > next(g for g in cell["gates"] if g["name"] == "kl_mean")["figure"]


def test_its_budget_stands_in_the_configuration(project: Path) -> None:
    (project / "kvquant.toml").write_text('[budgets."*/*"]\nkl_q99 = 0\n')
    ran = run(project, "-k", "kl_q99")
    assert ran.code == 1, ran.text
    assert "99th percentile of KL fails" in ran.text
    (project / "kvquant.toml").write_text('[budgets."*/*"]\nkl_q98 = 0\n')
    ran = run(project, "-k", "kl_q99")
    assert ran.code == 4, ran.text
    assert "did you mean 'kl_q99'?" in ran.text
    (project / "kvquant.toml").unlink()


def test_its_budget_stands_in_the_marker(project: Path) -> None:
    mine = project / "test_mine.py"
    text = "import pytest\n\n@pytest.mark.kv(budgets={'%s': 0.0}, pairs='q4_0/*')\n" \
           "def test_mine(kv_quality):\n    kv_quality.check('kl_q99')\n"  # fmt: skip
    mine.write_text(text % "kl_q99")
    ran = run(project, "test_mine.py")
    assert ran.code == 1, ran.text
    assert "99th percentile of KL fails" in ran.text
    mine.write_text(text % "kl_q98")
    ran = run(project, "test_mine.py")
    assert "did you mean 'kl_q99'?" in ran.text
    mine.unlink()
