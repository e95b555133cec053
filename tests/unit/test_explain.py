"""The documentation of gates and checks."""

from __future__ import annotations

import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.kernel_names import KERNEL_GATES
from pytest_kvquant.cli.main import main


@pytest.mark.parametrize("one", registry.declared(), ids=lambda one: one.name)
def test_every_declaration_is_documented(one: registry.Declaration) -> None:
    assert one.summary.endswith("."), one.name
    paragraphs = [text.partition(":")[0] for text in one.document.split("\n\n")[1:]]
    assert {"Why", "A failure means"} <= set(paragraphs), f"{one.name}: {paragraphs}"


def test_explain_says_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "kl_mean"]) == 0
    told = capsys.readouterr().out
    assert "test_kl_divergence" in told
    assert "A failure means:" in told
    assert main(["explain", "test_kl_divergence"]) == 0
    assert capsys.readouterr().out == told


@pytest.mark.parametrize(("gate", "beside"), KERNEL_GATES.items())
def test_explain_knows_every_gate_that_a_result_names(
    gate: str, beside: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", beside]) == 0
    told = capsys.readouterr().out
    assert "must cost" in told
    assert f"({gate})" in told


def test_explain_lists_all_and_makes_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [one.name for one in registry.declared()]
    assert main(["explain", "--markdown"]) == 0
    page = capsys.readouterr().out
    assert all(f"({name})=" in page for name in names)


def test_a_mistyped_name_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "kl_meen"]) == 2
    assert "did you mean 'kl_mean'?" in capsys.readouterr().err
