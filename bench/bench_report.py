"""The page of 7 × 7 cells at 5 depths: how large it is, how long it takes to make and to open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.browser import browser, find_browser
from support.matrix import enlarge

from pytest_kvquant.report.html import render
from pytest_kvquant.results.result import Result


@pytest.fixture
def whole(run: Callable[..., Result]) -> Result:
    whole: Result = enlarge(
        run("--kv-pairs", "q8_0/q4_0", "--kv-speed", "off", name="page"), depths=5
    )
    return whole


def test_making_the_page(benchmark: Any, whole: Result) -> None:
    page = benchmark.pedantic(render, (whole,), rounds=5)
    size = len(page.encode())
    print(f"\nthe page of {len(whole.cells)} cells at 5 depths: {size / 1e6:.1f} MB (target 6)")
    assert size < 6_000_000


def test_opening_the_page(benchmark: Any, whole: Result, tmp_path: Path) -> None:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    path = tmp_path / "page.html"
    path.write_text(render(whole), encoding="utf-8")
    with browser(program, tmp_path / "profile") as page:
        page.emulate(width=1200, height=900)
        benchmark.pedantic(page.open, (path,), rounds=5)
        assert page.complaints == []
    print(f"\nopened and drawn in {benchmark.stats['median']:.2f} s (target 2 s)")
