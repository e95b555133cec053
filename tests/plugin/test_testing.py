"""pytest_kvquant.testing: gates decided without a model, runs with planted faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvquant import testing
from pytest_kvquant.checks.kl_mean import kl_mean
from pytest_kvquant.checks.top1_flips import top1_flips
from pytest_kvquant.results.gate import Gate


def test_a_gate_is_decided_without_an_engine() -> None:
    good = testing.subject(per_chunk={"kl": testing.chunks(0.0005)})
    bad = testing.subject(per_chunk={"kl": testing.chunks(3.0)})
    verdicts = []
    for subject in (good, bad):
        gate = testing.decide(kl_mean, subject)
        assert isinstance(gate, Gate)
        verdicts.append(gate.verdict)
    assert verdicts == ["pass", "fail"]
    assert testing.declaration(top1_flips).test == "test_top1_agreement"
    with pytest.raises(TypeError, match="not decorated"):
        testing.declaration(len)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> testing.Project:
    return testing.Project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(
    ("fault", "verdicts"),
    [("swapped", {"fail"}), ("nan", {"non-finite"}), ("crash", {"crashed"}),
     ("substituted", {"substituted", "fail"}), ("inactive", {"substituted", "inactive", "fail"})],
)  # fmt: skip
def test_planted_faults_are_found(project: testing.Project, fault: str, verdicts: set[str]) -> None:
    project.plant(fault)
    ran = project.run("--kv-pairs=q4_0/q4_0")
    assert ran.code == 1, ran.text
    assert ran.verdict("q4_0/q4_0") in verdicts, ran.text
    assert ran.verdict("f16/f16") == "pass"


OWN = """
import numpy as np


def test_a_scenario_of_ones_own(kv_cell):
    words = kv_cell.tokens(40)
    with kv_cell.context() as live:
        live.decode(words[:30])
        before = live.decode(words[30:], one_at_a_time=True)
        live.clear()
        live.decode(words[:30])
        live.save_and_restore()
        after = live.decode(words[30:], one_at_a_time=True)
    assert np.array_equal(before.cell, after.cell)
    assert before.kl.shape == (10,)
    assert before.kl.mean() < 0.1


def test_logits(kv_cell):
    both = kv_cell.logits(kv_cell.tokens(24))
    assert both.cell.shape == both.f16.shape
    assert (both.kl == 0).all() == (str(kv_cell) == "f16/f16")
    assert both.same_choice.mean() > 0.5
"""


def test_a_live_context_with_that_of_f16_beside_it(tmp_path: Path) -> None:
    project = testing.Project(tmp_path)
    project.file("test_own.py", OWN)
    ran = project.run("test_own.py", "--kv-pairs=q8_0/q8_0")
    assert "4 passed" in ran.text, ran.text
    project.plant("crash")
    ran = project.run("test_own.py", "--kv-pairs=q8_0/q8_0", "-k", "logits")
    assert "q8_0/q8_0: crashed" in ran.text
    assert "Traceback" not in ran.text
