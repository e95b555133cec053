"""The README says what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.budget import Budget
from pytest_kvquant.config.options import OPTIONS
from pytest_kvquant.config.speed_tests import SPEED_TESTS
from tools.pages import command_parsers

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_option_is_in_the_readme_with_its_help() -> None:
    missing = [
        option.flag
        for option in OPTIONS
        if f"| `{option.flag}" not in README or option.help not in README
    ]
    assert missing == []


def test_every_test_of_the_suite_is_in_the_readme() -> None:
    suite = ROOT / "pytest_kvquant" / "suite"
    names = {
        line.removeprefix("def ").partition("(")[0]
        for file in suite.glob("test_*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("def test_")
    }
    names |= {one.test for one in SPEED_TESTS} | {one.test for one in registry.declared()}
    assert {name for name in names if f"`{name}`" not in README} == set()


@pytest.mark.parametrize("name", sorted(command_parsers()))
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"kvquant {name}[ `]", README), f"README lacks `kvquant {name}`"


@pytest.mark.parametrize("budget", registry.budgets(), ids=lambda one: one.key)
def test_every_budget_stands_in_the_readme_s_example(budget: Budget) -> None:
    (line,) = (line for line in README.splitlines() if "# nats; also" in line)
    assert budget.key in line, f"README's [budgets] example lacks {budget.key}"


def test_links_within_the_project_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    inside = [target for target in targets if "://" not in target]
    assert inside
    assert [target for target in inside if not (ROOT / target).exists()] == []
