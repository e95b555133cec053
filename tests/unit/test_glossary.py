"""Every term of the output is found in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.schema import records
from tools import pages

DOCS = Path(__file__).parents[2] / "docs"
GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8").lower()

TERMS = (
    "pair", "cell", "chunk", "census", "placement", "footprint", "budget", "floor", "baseline",
    "drift", "verdict", "gate", "check", "suspect", "slowdown", "cliff", "trajectory", "digest",
    "noise floor", "tie band", "reference", "depth", "ceiling", "advice", "coverage", "e-value",
    "holm", "workload", "recall", "strict", "profile", "shard", "roof",
)  # fmt: skip

PRIVATE = r"\b(climb(s|ed|ing)?|lane|beds?|yardsticks?|travels?|own pairs?)\b"
"""Words of earlier versions that meant nothing to a reader of llama.cpp."""


@pytest.mark.parametrize("term", TERMS)
def test_the_words_of_the_output_are_explained(term: str) -> None:
    assert term in GLOSSARY


def test_every_key_and_class_has_its_line() -> None:
    keys = pages.keys()
    for record in records(Result):
        assert f"## {record.__name__}\n" in keys
        for name in record.__struct_fields__:
            assert f"| `{name}` | " in keys, f"{record.__name__}.{name}"
    undocumented = [name for name, _, what in pages.classes() if not what]
    assert not undocumented


def test_the_gates_and_checks_have_an_anchor_each() -> None:
    page = pages.as_page(registry.declared())
    assert all(f"({one.name})=\n" in page for one in registry.declared())


def test_private_words_do_not_come_back() -> None:
    package = Path(pages.PACKAGE)
    found = [
        f"{path.relative_to(package.parent)}:{number}: {line.strip()}"
        for path in (*sorted(package.rglob("*.py")), *sorted(DOCS.glob("*.md")))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(PRIVATE, line)
        and not any(word in line for word in ("travel by value", "lane's sign"))
    ]
    assert not found
