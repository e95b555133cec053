"""The page in a real browser: it draws, answers the mouse, and complains about nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from support.matrix import recalled

from pytest_kvquant import format
from pytest_kvquant.report import history
from pytest_kvquant.report.html import render
from pytest_kvquant.report.snapshot import of_result
from pytest_kvquant.results.result import Result

browsers = pytest.importorskip("support.browser", reason="websockets is not installed")
PROGRAM = browsers.find_browser()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium here (Debian: apt-get install chromium)"
)
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Page]:
    """One browser for all of these tests."""
    with browsers.browser(PROGRAM, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, matrix: Callable[..., Result]) -> Path:
    """The page of 7 × 7 cells at 5 depths: one failing, one crashed, the model named by a foe."""
    whole = matrix(depths=5)
    replace = msgspec.structs.replace
    cells = list(whole.cells)
    failing = (replace(cells[9].gates[0], verdict="fail"), *cells[9].gates[1:])
    cells[9] = replace(cells[9], verdict="fail", gates=failing)
    cells[20] = replace(
        cells[20], verdict="crashed", message="SIGSEGV", log="a <b> c", quality=None, gates=()
    )
    whole = replace(whole, cells=tuple(cells), model=replace(whole.model, name=EVIL))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(whole), encoding="utf-8")
    return path


@pytest.fixture
def opened(page: browsers.Page, file: Path) -> Iterator[browsers.Page]:
    """The page, freshly opened on a desktop in a light theme; nothing was complained about."""
    page.complaints.clear()
    page.emulate(width=1200, height=900)
    page.open(file)
    yield page
    assert page.complaints == []


def _text(page: browsers.Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))


def _point(page: browsers.Page, label: str) -> None:
    """Move the mouse onto the text of a chart."""
    page.evaluate("document.getElementById('heat').scrollIntoView({behavior: 'instant'})")
    x, y = page.evaluate(
        "(() => { const found = [...document.querySelectorAll('#heat text')].find((one) => "
        f"one.textContent === {json.dumps(label)}); const box = found.getBoundingClientRect(); "
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    page.mouse(x - 3, y)
    page.mouse(x, y)


def test_every_chart_is_drawn(opened: browsers.Page) -> None:
    for chart in ("heat", "tradeoff", "speeds", "positions", "distribution", "recalled"):
        assert opened.evaluate(f"document.querySelectorAll('#{chart} svg path').length") > 5, chart


def test_a_foe_stays_text(opened: browsers.Page) -> None:
    assert opened.evaluate("document.images.length") == 0
    assert EVIL in opened.evaluate("document.title")
    assert EVIL in _text(opened, "#verdict")


def test_hovering_shows_the_figures_of_a_pair(opened: browsers.Page) -> None:
    _point(opened, "crashed ✗")
    opened.wait_for("document.querySelector('#heat .tip') !== null")
    assert "turbo4" in _text(opened, "#heat .tip") or "q5_1" in _text(opened, "#heat .tip")
    assert "crashed" in _text(opened, "#heat .tip")


def test_another_figure(opened: browsers.Page) -> None:
    before = _text(opened, "#heat")
    opened.click("#metric button[data-key=top1]")
    assert _text(opened, "#heat") != before
    assert "%" in _text(opened, "#heat")
    assert opened.evaluate("document.querySelectorAll('#metric [aria-pressed=true]').length") == 1


def test_speed_by_path_and_unit(opened: browsers.Page) -> None:
    opened.click("#speed-choice button[data-key=pp]")
    opened.click("#speed-choice button[data-key=speed]")
    pressed = opened.evaluate(
        "[...document.querySelectorAll('#speed-choice [aria-pressed=true]')]"
        ".map((one) => one.dataset.key)"
    )
    assert pressed == ["pp", "speed"]
    assert "tok/s" in _text(opened, "#speeds")


def test_speed_starts_with_the_ratio_to_f16(opened: browsers.Page) -> None:
    assert "times f16/f16" in _text(opened, "#speeds")


def test_one_depth_is_a_named_point_for_every_pair(
    page: browsers.Page, matrix: Callable[..., Result], tmp_path: Path
) -> None:
    """It was four dots above each other, of sixteen pairs, with no figure and no name."""
    result = matrix(depths=1)
    path = tmp_path / "one.html"
    path.write_text(render(result), encoding="utf-8")
    page.complaints.clear()
    page.emulate(width=1200, height=900)
    page.open(path)
    timed = {cell.pair for cell in result.speed}
    assert timed
    for speed in ("tg", "pp"):  # each has a ratio of its own
        page.click(f"#speed-choice button[data-key={speed}]")
        words = page.evaluate(
            "[...document.querySelectorAll('#speeds text')].map((e) => e.textContent)"
        )
        assert timed <= set(words), speed
    assert "Speed with" in _text(page, "#speed h2")
    page.click("#speed-choice button[data-key=speed]")
    assert "tok/s" in _text(page, "#speeds")
    assert page.complaints == []


@pytest.fixture
def recall(page: browsers.Page, matrix: Callable[..., Result], tmp_path: Path) -> browsers.Page:
    """A page with a pair that loses what is 1,024 tokens back, where f16 cannot recall at 4,096."""
    whole = matrix(types=("f16", "q8_0"))
    replace = msgspec.structs.replace
    lossy = (
        *whole.cells[0].recall[:2], recalled(1024, 0.31, "fail"), recalled(2048, 0.8),
        recalled(4096, None, "cannot"),
    )  # fmt: skip
    cells = (*whole.cells[:3], replace(whole.cells[3], recall=lossy))
    path = tmp_path / "recall.html"
    path.write_text(render(replace(whole, cells=cells)), encoding="utf-8")
    page.complaints.clear()
    page.emulate(width=1200, height=900)
    page.open(path)
    return page


def test_recall_is_a_line_of_every_pair_by_distance(recall: browsers.Page) -> None:
    words = recall.evaluate(
        "[...document.querySelectorAll('#recalled text')].map((e) => e.textContent)"
    )
    assert {"256", "512", "1K", "2K", "4K", "q8_0/q8_0", "100%"} <= set(words)
    assert words.count("✗") == 1, "the one that fails"
    assert recall.complaints == []


def test_the_table_behind_the_chart_of_recall(recall: browsers.Page) -> None:
    recall.click("[data-table=recalled] summary")
    recall.wait_for("document.querySelector('[data-table=recalled] table') !== null")
    lines = recall.evaluate(
        "[...document.querySelectorAll('[data-table=recalled] tr')]"
        ".map((row) => [...row.cells].map((one) => one.textContent))"
    )
    assert lines[0][1:] == ["256 tokens", "512 tokens", "1,024 tokens", "2,048 tokens",
                            "4,096 tokens"]  # fmt: skip
    assert lines[-1] == ["q8_0/q8_0", "100%", "100%", "31% ✗", "80%", "f16 cannot"]
    link = "document.querySelector('[data-table=recalled] tr:last-child a').hash"
    assert recall.evaluate(link) == "#q8_0-q8_0"


def test_pairs_of_the_curves(opened: browsers.Page) -> None:
    assert "turbo3/turbo3" in _text(opened, "#positions")
    opened.evaluate(
        "(() => { const shown = document.getElementById('shown'); shown.value = 'bad';"
        "shown.dispatchEvent(new Event('change')); })()"
    )
    assert "turbo3/turbo3" not in _text(opened, "#positions")


def test_the_theme(opened: browsers.Page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(colour)
    opened.click("#theme")
    assert opened.evaluate(colour) != light
    opened.click("#theme")
    assert opened.evaluate(colour) == light
    opened.emulate(width=1200, height=900, scheme="dark")


def test_a_click_opens_the_gates_of_a_cell(opened: browsers.Page) -> None:
    _point(opened, "crashed ✗")
    x, y = opened.evaluate(
        "(() => { const found = [...document.querySelectorAll('#heat text')].find((one) => "
        "one.textContent === 'crashed ✗'); const box = found.getBoundingClientRect(); "
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    opened.mouse(x, y, click=True)
    opened.wait_for("document.querySelector('#turbo2-turbo4, #q5_1-turbo2') !== null")
    opened.wait_for("[...document.querySelectorAll('details.each[open]')].length === 1")
    assert "crashed" in _text(opened, "details.each[open]")


def test_a_phone_needs_no_sideways_scrolling(page: browsers.Page, file: Path) -> None:
    page.emulate(width=375, height=800)
    page.open(file)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_on_paper_it_is_light_and_stays_folded(page: browsers.Page, file: Path) -> None:
    page.emulate(width=1200, height=900, scheme="dark")
    page.open(file)
    before = page.evaluate("document.documentElement.dataset.theme")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('details[open]').length") == 0
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == before


@pytest.mark.parametrize("failing", [0, 16])
def test_sixteen_pairs_take_at_most_twelve_sheets_of_paper(
    page: browsers.Page, tmp_path: Path, matrix: Callable[..., Result], failing: int
) -> None:
    whole = matrix(types=("f16", "q8_0", "q5_1", "q4_0"), depths=3)
    replace = msgspec.structs.replace
    bad = tuple(
        replace(one, verdict="fail", gates=tuple(replace(g, verdict="fail") for g in one.gates))
        for one in whole.cells[:failing]
    )
    path = tmp_path / "paper.html"
    text = render(replace(whole, cells=(*bad, *whole.cells[failing:])))
    path.write_text(text, encoding="utf-8")
    assert len(text.encode()) <= 1_000_000
    page.emulate(width=1200, height=900)
    page.open(path)
    sheets = page.sheets()
    assert 1 <= sheets <= 12


FIGURES = (
    0.0, 1e-7, 9.94e-6, 1.05e-5, 0.000123456, 0.0016, 0.00999, 0.01, 0.0995, 0.1234, 0.999, 1.0,
    1.7432, 12.3456, 99.95, 123.4, 25231.4,
)  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "python"),
    [("nats", format.kl), ("share", format.percent), ("signed", format.signed),
     ("ratio", format.ratio), ("count", format.count), ("speed", format.speed)],
)  # fmt: skip
def test_the_same_figure_has_the_same_digits_in_page_and_terminal(
    opened: browsers.Page, unit: str, python: Callable[[float], str]
) -> None:
    figures = [x for x in FIGURES if unit != "speed" or x == 0 or x > 0.001]
    shown = opened.evaluate(f"{json.dumps(figures)}.map((x) => kv.show.{unit}(x))")
    assert shown == [python(x) for x in figures]


def test_names_of_points_do_not_lie_on_the_axis(
    page: browsers.Page, tmp_path: Path, matrix: Callable[..., Result]
) -> None:
    """On a phone the name of the smallest pair stood on the topmost figure of the axis."""
    path = tmp_path / "few.html"
    path.write_text(render(matrix(types=("f16", "q8_0"))), encoding="utf-8")
    page.emulate(width=390, height=844)
    page.open(path)
    names, axis = (
        page.evaluate(
            "[...document.querySelectorAll('#tradeoff text')].filter((one) => "
            f"{test}(one.textContent)).map((one) => {{ const box = one.getBoundingClientRect();"
            " return [box.left, box.top, box.right, box.bottom]; })"
        )
        for test in ("/^[a-z]+[0-9_]+\\/[a-z0-9_]+$/.test", "/^[0-9.]+$/.test")
    )
    assert len(names) > 1
    assert axis
    for left, top, right, bottom in names:
        for a, b, c, d in axis:
            assert right <= a or c <= left or bottom <= b or d <= top


def test_the_page_of_a_history(
    page: browsers.Page, tmp_path: Path, matrix: Callable[..., Result]
) -> None:
    one = matrix(types=("f16", "q8_0"))
    path = tmp_path / "history.html"
    path.write_text(history.render(history.series([of_result(one)] * 4)), encoding="utf-8")
    page.complaints.clear()
    page.emulate(width=1200, height=900)
    page.open(path)
    assert "q8_0/q8_0" in _text(page, "#series-0")
    assert "KL (nats)" in _text(page, "#series-0")
    assert page.complaints == []
