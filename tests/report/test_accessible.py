"""axe-core finds nothing in any page, in any theme, folded or not; the keyboard reaches it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pytest_kvquant.report import diff, history
from pytest_kvquant.report.compare import compare
from pytest_kvquant.report.html import render
from pytest_kvquant.report.snapshot import of_result
from pytest_kvquant.results.result import Result

browsers = pytest.importorskip("support.browser", reason="websockets is not installed")
from support.axe import find_axe, violations  # noqa: E402

PROGRAM, AXE = browsers.find_browser(), find_axe()
pytestmark = [
    pytest.mark.skipif(
        PROGRAM is None, reason="no Chromium here (Debian: apt-get install chromium)"
    )
]
needs_axe = pytest.mark.skipif(
    AXE is None, reason="no axe-core here (npm install in tools/axe, or KVQUANT_AXE)"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Page]:
    with browsers.browser(PROGRAM, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, matrix: Callable[..., Result]) -> Path:
    """A page with failures and a crash, an incomplete one, and one of a history."""
    folder = tmp_path_factory.mktemp("pages")
    whole = matrix(types=("f16", "q8_0", "turbo4"), depths=3)
    replace = msgspec.structs.replace
    cells = list(whole.cells)
    failing = (replace(cells[4].gates[0], verdict="fail"), *cells[4].gates[1:])
    open_gate = (replace(cells[5].gates[0], verdict="inconclusive"), *cells[5].gates[1:])
    cells[4] = replace(cells[4], verdict="fail", gates=failing)
    cells[5] = replace(cells[5], verdict="inconclusive", gates=open_gate)
    cells[7] = replace(
        cells[7], verdict="crashed", message="SIGSEGV", log="a <b> c", quality=None, gates=()
    )
    whole = replace(whole, cells=tuple(cells))
    (folder / "report.html").write_text(render(whole), encoding="utf-8")
    part = replace(whole, cells=tuple(cells[:4]))
    (folder / "incomplete.html").write_text(
        render(part, incomplete="4 of 9 pairs."), encoding="utf-8"
    )
    (folder / "history.html").write_text(
        history.render(history.series([of_result(whole)] * 3)), encoding="utf-8"
    )
    (folder / "diff.html").write_text(
        diff.render(compare(whole, part), whole, part), encoding="utf-8"
    )
    return folder


UNFOLD = "document.querySelectorAll('details').forEach((fold) => { fold.open = true; }); 0"


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 375])
@pytest.mark.parametrize("name", ["report", "incomplete", "history", "diff"])
def test_axe_finds_nothing(
    page: browsers.Page, files: Path, name: str, width: int, scheme: str
) -> None:
    page.emulate(width=width, height=900, scheme=scheme)
    page.open(files / f"{name}.html")
    assert AXE is not None
    assert violations(page, AXE) == []
    page.evaluate(UNFOLD)
    page.wait_for(
        "[...document.querySelectorAll('details[data-table]')]"
        ".every((one) => one.querySelector('table'))"
    )
    assert violations(page, AXE) == []


@needs_axe
def test_axe_would_find_something(page: browsers.Page, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<html data-ready=yes><body><img src='data:,'><a href='#x'></a></body></html>")
    page.open(path)
    assert AXE is not None
    assert {one["id"] for one in violations(page, AXE)} >= {"image-alt", "link-name"}


def _tab(page: browsers.Page) -> str:
    for kind in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                  windowsVirtualKeyCode=9)  # fmt: skip
    return str(page.evaluate("document.activeElement.outerHTML.slice(0, 200)"))


def _enter(page: browsers.Page) -> None:
    for kind in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                  windowsVirtualKeyCode=13)  # fmt: skip


def test_the_keyboard_alone_leads_from_the_matrix_to_the_gates_of_a_pair(
    page: browsers.Page, files: Path
) -> None:
    page.emulate(width=1200, height=900)
    page.open(files / "report.html")
    assert 'class="skip"' in _tab(page)
    for _ in range(60):
        if "as a table" in _tab(page):
            break
    _enter(page)
    page.wait_for("document.querySelector('[data-table=heat] table') !== null")
    for _ in range(12):
        if "#q8_0-turbo4" in _tab(page):
            break
    _enter(page)
    page.wait_for("document.getElementById('q8_0-turbo4').open")


def test_a_deep_link_opens_the_gate_that_it_names(page: browsers.Page, files: Path) -> None:
    page.emulate(width=1200, height=900)
    page.send("Page.navigate", url="about:blank")
    page.send("Page.navigate", url=(files / "report.html").as_uri() + "#q8_0-q8_0--kl_mean")
    page.wait_for("document.documentElement?.dataset.ready === 'yes'")
    assert page.evaluate("document.getElementById('q8_0-q8_0').open")
    place = page.evaluate(
        "document.getElementById('q8_0-q8_0--kl_mean').getBoundingClientRect().top"
    )
    assert 0 <= place <= 900


def test_the_text_of_a_chart_can_be_selected(page: browsers.Page, files: Path) -> None:
    page.emulate(width=1200, height=900)
    page.open(files / "report.html")
    chosen = page.evaluate(
        "(() => { const text = document.querySelector('#heat svg text');"
        "getSelection().selectAllChildren(text); return getSelection().toString() + '|' +"
        "getComputedStyle(text).userSelect; })()"
    )
    words, _, way = chosen.partition("|")
    assert words
    assert way == "text"
