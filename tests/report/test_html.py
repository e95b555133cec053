"""The page as a file: self-contained, small, and safe whatever a name says."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import msgspec
from support.matrix import TYPES

from pytest_kvquant.report.html import ECHARTS, render, unpacked
from pytest_kvquant.results.file import decode
from pytest_kvquant.results.result import Result

from .conftest import Run

EVIL = "<img src=x onerror=alert(1)></script><script>alert(1)</script>{{ 7 * 7 }}"


def _raw(page: str) -> bytes:
    found = re.search(r'<script type="application/gzip\+base64" id="result">(.*?)</script>', page)
    assert found is not None
    return unpacked(found.group(1))


def _without_library(page: str) -> str:
    found = re.search(r'<script type="application/gzip\+base64" id="library">(.*?)</script>', page)
    assert found is not None
    assert unpacked(found.group(1)) == ECHARTS.read_bytes()
    return page.replace(found.group(1), "")


def test_a_run_writes_the_page_and_it_carries_the_result(run: Run) -> None:
    assert decode(_raw((run.folder / "r.html").read_text()), "page") == run.result


def test_nothing_is_fetched(result: Result) -> None:
    page = _without_library(render(result))
    assert "default-src 'none'" in unescape(page)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert "http" not in re.sub(r"http-equiv", "", page.split('id="view"')[0])


def test_names_stay_text(result: Result) -> None:
    named = msgspec.structs.replace(result, model=msgspec.structs.replace(result.model, name=EVIL))
    page = render(named)
    assert "<img" not in _without_library(page)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert json.loads(_raw(page))["model"]["name"] == EVIL
    scripts = re.findall(r"<script(?: [^>]*)?>", page)
    assert len(scripts) == 4


def test_a_large_matrix_stays_small(matrix: Callable[..., Result]) -> None:
    """Each pair brings its figures, its raw record and its place in the map, and no more."""
    few, many = (matrix(types=TYPES[:count], depths=5) for count in (4, 7))
    sizes = [len(render(one).encode()) for one in (few, many)]
    assert sizes[0] < 1_000_000
    assert sizes[1] - sizes[0] < 33 * 45_000


def test_what_was_not_measured_is_said(result: Result) -> None:
    page = render(result)
    assert "Speed was not measured in this run." in page
    assert 'id="speeds"' not in page


def test_the_map_of_corners_says_what_was_covered_and_what_was_not(result: Result) -> None:
    page = render(result)
    assert 'id="coverage"' in page
    assert re.search(r'<td class="fine" title="q8_0/q4_0, query tokens, up to 4,096 cells', page)
    assert 'title="q8_0/q4_0, head size, 64: not covered"' in page
    blank = [msgspec.structs.replace(cell, kernels=None) for cell in result.cells]
    bare = msgspec.structs.replace(result, cells=tuple(blank))
    assert 'id="coverage"' not in render(bare)


def test_speed_is_drawn_where_it_was_measured(matrix: Callable[..., Result]) -> None:
    page = render(matrix(types=("f16", "q8_0"), depths=2))
    assert 'id="speeds"' in page


def test_further_texts_and_disturbed_text_have_tables(matrix: Callable[..., Result]) -> None:
    whole = matrix(types=("f16", "q8_0"))
    replace = msgspec.structs.replace
    first = whole.cells[0]
    texts = (replace(first.texts[0], verdict="fail"), replace(first.texts[1], quality=None))
    page = render(replace(whole, cells=(replace(first, texts=texts), *whole.cells[1:])))
    section = page.partition('<section id="texts">')[2].partition("</section>")[0]
    heads = re.findall(r"<th>(.*?)</th>", section)
    assert heads == ["pair", whole.corpus.name, "code", "chat", "pair", "typing errors"]
    assert section.count('class="pair" href="#q8_0-q8_0"') == 2
    assert re.search(r'<span class="tag bad">\S+ ✗</span>', section)
    assert ">NaN<" in section
    assert "1.10×" in section


def test_recall_at_one_distance_is_a_table_and_no_chart(matrix: Callable[..., Result]) -> None:
    whole = matrix(types=("f16", "q8_0"))
    near = [msgspec.structs.replace(one, recall=one.recall[:1]) for one in whole.cells]
    page = render(msgspec.structs.replace(whole, cells=tuple(near)))
    assert 'id="recall"' in page
    assert 'id="recalled"' not in page
    section = page.partition('<section id="recall">')[2].partition("</section>")[0]
    assert "<th>256</th>" in section
    assert section.count("<tr>") == 1 + len(whole.cells)


def test_without_further_work_there_is_no_place_for_it(result: Result) -> None:
    bare = [msgspec.structs.replace(one, texts=(), recall=()) for one in result.cells]
    page = render(msgspec.structs.replace(result, cells=tuple(bare)))
    assert 'id="recall"' not in page
    assert 'id="texts"' not in page


def test_the_embedded_library_is_the_one_that_its_readme_names() -> None:
    digest = hashlib.sha256(ECHARTS.read_bytes()).hexdigest()
    assert digest in (ECHARTS.parent / "README.md").read_text(encoding="utf-8")


def test_without_the_extra_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "hide.py").write_text("import sys; sys.modules['jinja2'] = None\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "hide", "--kv-matrix", "--kv-report", "r.html"],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "pip install 'pytest-kvquant[report]'" in done.stderr
    assert "Traceback" not in done.stderr
