"""The screens in the docs, drawn anew from one result.

    python tools/screens.py kv.json [--to docs/images]

Terminal at 80 and 120 columns (SVG), the page light, dark, on a phone, on paper, and of a run that
goes on (PNG). Needs a Chromium; see tests/support/browser.py.
"""

from __future__ import annotations

import argparse
import base64
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import browser  # noqa: E402

from pytest_kvquant.report.advice import advise  # noqa: E402
from pytest_kvquant.report.html import render  # noqa: E402
from pytest_kvquant.report.terminal import render as render_terminal  # noqa: E402
from pytest_kvquant.results.file import read  # noqa: E402
from pytest_kvquant.results.result import Result  # noqa: E402

WIDTHS = (80, 120)
DESKTOP, PHONE = (1120, 900), (390, 844)
TALLEST = 2600
"""Pixels of the page that a picture shows."""


def main() -> int:
    """Draw every screen; the names of the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images")
    parsed = parser.parse_args()
    program = browser.find_browser()
    if program is None:
        print("screens: no Chromium here (Debian: apt-get install chromium)", file=sys.stderr)
        return 2
    result = read(parsed.result)
    parsed.to.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        path = parsed.to / f"terminal-{width}.svg"
        path.write_text(terminal(result, width), encoding="utf-8")
        print(path)
    with tempfile.TemporaryDirectory() as folder, _page(program, Path(folder)) as page:
        for path in pages(page, result, Path(folder), parsed.to):
            print(path)
    return 0


def terminal(result: Result, width: int) -> str:
    """The section of a run as a terminal of that width shows it."""
    text = render_terminal(result, width=width, colour=True)
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(Text.from_ansi(text))
    return console.export_svg(title=f"pytest --kv-matrix, {width} columns")


def pages(page: browser.Page, result: Result, folder: Path, to: Path) -> Iterator[Path]:
    """Pictures of the page in every way that it is looked at."""
    whole, part = folder / "whole.html", folder / "part.html"
    whole.write_text(render(result), encoding="utf-8")
    some = result.cells[: len(result.cells) // 2]
    names = {cell.pair for cell in some}
    speed = tuple(one for one in result.speed if one.pair in names)
    advice = advise(some, speed, (), by_cell=result.reference.by_cell)
    running = msgspec.structs.replace(result, cells=some, speed=speed, advice=advice)
    left = len(result.cells) - len(some)
    words = f"{len(some)} of {len(result.cells)} pairs are measured, {left} to come."
    part.write_text(render(running, incomplete=words), encoding="utf-8")
    looks = (
        ("report-light", whole, DESKTOP, "light"),
        ("report-dark", whole, DESKTOP, "dark"),
        ("report-phone", whole, PHONE, "light"),
        ("report-incomplete", part, DESKTOP, "light"),
    )
    for name, file, (width, height), scheme in looks:
        page.emulate(width=width, height=height, scheme=scheme)
        page.open(file)
        path = to / f"{name}.png"
        _picture(page, path, width, 0)
        yield path
        if name == "report-light":
            top = page.evaluate("document.getElementById('trade').offsetTop")
            _picture(page, to / "report-charts.png", width, top)
            yield to / "report-charts.png"
    page.emulate(width=DESKTOP[0], height=DESKTOP[1])
    page.open(whole)
    yield from _paper(page, to, folder)


def _picture(page: browser.Page, path: Path, width: int, top: float) -> None:
    whole = page.evaluate("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": top, "width": width, "height": min(whole - top, TALLEST), "scale": 1}
    found = page.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    path.write_bytes(base64.b64decode(found["data"]))


def _paper(page: browser.Page, to: Path, folder: Path) -> Iterator[Path]:
    """The first sheet, drawn by pdftoppm where it is installed."""
    found = page.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
    pdf = folder / "paper.pdf"
    pdf.write_bytes(base64.b64decode(found["data"]))
    words = ["pdftoppm", "-png", "-r", "80", "-singlefile", str(pdf), str(to / "report-paper")]
    try:
        subprocess.run(words, check=True)
    except OSError:
        print("screens: no pdftoppm here, so no picture of the paper", file=sys.stderr)
        return
    yield to / "report-paper.png"


@contextmanager
def _page(program: str, folder: Path) -> Iterator[browser.Page]:
    with browser.browser(program, folder / "profile") as page:
        yield page


if __name__ == "__main__":
    raise SystemExit(main())
