"""How further options of llama.cpp are written: in a word of their own only after a ``=``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
APART = re.compile(r"--kv-llama ['\"]?-[a-zA-Z]")
"""pytest takes ``-sm`` in a word of its own for its ``-s``, and an argument is missing."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_show_the_form_that_works(page: Path) -> None:
    assert APART.findall(page.read_text(encoding="utf-8")) == []


def test_short_options_come_through_pytest(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig("--kv-llama=-sm layer -ts 1,1")
    assert config.getoption("kv_llama") == "-sm layer -ts 1,1"
