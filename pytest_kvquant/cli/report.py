"""``kvquant report``: a kept result as page, summary or tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.drawing import drawn
from pytest_kvquant.cli.files import say, write

TABLE_FORMATS = ("markdown", "csv", "latex", "article", "article:csv", "article:latex")
"""Also as ``--kv-table`` of a run takes them."""


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    report = commands.add_parser("report", help="draw a kept result: page, summary, tables")
    report.add_argument("result", type=Path, help="result from --kv-json")
    report.add_argument("--html", type=Path, metavar="PATH", help="write the page")
    report.add_argument("--summary", type=Path, metavar="PATH", help="write the markdown summary")
    report.add_argument(
        "--table", choices=TABLE_FORMATS, help="print the two tables of an article in this format"
    )
    report.set_defaults(run=_report)


def _report(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report import markdown
    from pytest_kvquant.report.article import article, format_of
    from pytest_kvquant.results.file import read

    result = read(parsed.result)
    if parsed.html is not None:
        from pytest_kvquant.report.html import render, require_extra

        require_extra("--html")
        write(parsed.html, render(result).encode())
    if parsed.summary is not None:
        write(parsed.summary, markdown.summary(result).encode())
    if parsed.table:
        say(article(result, format_of(parsed.table)))
    elif parsed.html is None and parsed.summary is None:
        say(drawn(result))
    return 0
