"""The commands that draw a kept result: ``kvquant report``, ``show``, ``export``, ``import``."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvquant.cli.files import say, write
from pytest_kvquant.errors import ResultError

if TYPE_CHECKING:
    from pytest_kvquant.results.result import Result

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

TABLE_FORMATS = ("markdown", "csv", "latex")


def add(commands: Commands) -> None:
    """Add the commands to those of ``kvquant``."""
    report = commands.add_parser("report", help="draw a kept result: page, summary, tables")
    report.add_argument("result", type=Path, help="result from --kv-json")
    report.add_argument("--html", type=Path, metavar="PATH", help="write the page")
    report.add_argument("--summary", type=Path, metavar="PATH", help="write the markdown summary")
    report.add_argument(
        "--table", choices=TABLE_FORMATS, help="print the two tables of an article in this format"
    )
    report.set_defaults(run=_report)

    show = commands.add_parser("show", help="print a kept result, or one pair of it with its gates")
    show.add_argument("result", type=Path, help="result from --kv-json")
    show.add_argument("pair", nargs="?", metavar="K/V", help="one pair, in full")
    show.set_defaults(run=_show)

    export = commands.add_parser("export", help="write results as SQLite or CSV")
    export.add_argument("results", type=Path, nargs="+", help="results from --kv-json")
    where = export.add_mutually_exclusive_group(required=True)
    where.add_argument("--sqlite", type=Path, metavar="PATH", help="database; runs are added to it")
    where.add_argument("--csv", type=Path, metavar="DIR", help="folder; a file for each table")
    export.set_defaults(run=_export)

    imported = commands.add_parser(
        "import", help="take the JSON of llama-bench or REFRACT into a history"
    )
    imported.add_argument("file", type=Path, help="llama-bench -o json, or a report of REFRACT")
    imported.add_argument("out", type=Path, help="file to write, in the folder of the history")
    imported.set_defaults(run=_import)


def _report(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report import markdown
    from pytest_kvquant.report.article import article
    from pytest_kvquant.results.file import read

    result = read(parsed.result)
    if parsed.html is not None:
        from pytest_kvquant.report.html import render, require_extra

        require_extra("--html")
        write(parsed.html, render(result).encode())
    if parsed.summary is not None:
        write(parsed.summary, markdown.summary(result).encode())
    if parsed.table:
        say(article(result, parsed.table))
    elif parsed.html is None and parsed.summary is None:
        say(_drawn(result))
    return 0


def _show(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.one_pair import one_pair
    from pytest_kvquant.results.file import read

    result = read(parsed.result)
    if parsed.pair is None:
        say(_drawn(result))
    else:
        say(one_pair(result, parsed.pair))
    return 0


def _drawn(result: Result) -> str:
    """The whole result as this terminal shows it: its width, colours and boxes."""
    import os

    from pytest_kvquant.report import terminal

    dumb = os.environ.get("TERM") == "dumb"
    encoding = (sys.stdout.encoding or "utf-8").lower()
    text = terminal.render(
        result,
        width=max(shutil.get_terminal_size((100, 24)).columns, terminal.NARROWEST),
        colour=sys.stdout.isatty() and not dumb and "NO_COLOR" not in os.environ,
        ascii_only=dumb or "utf" not in encoding,
    )
    return f"{text}\n"


def _export(parsed: argparse.Namespace) -> int:
    import sqlite3

    from pytest_kvquant.report.export import to_csv, to_sqlite
    from pytest_kvquant.results.file import read

    results = [read(path) for path in parsed.results]
    try:
        if parsed.sqlite is not None:
            written = to_sqlite(results, parsed.sqlite)
            print(f"kvquant export: {written} runs are in {parsed.sqlite}", file=sys.stderr)
            return 0
        if len(results) > 1:
            raise ResultError("--csv takes one result: its files have no place for several runs.")
        for path in to_csv(results[0], parsed.csv):
            print(path)
    except (sqlite3.Error, OSError) as error:
        raise ResultError(f"Nothing was written: {error}.") from None
    return 0


def _import(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.snapshot import encode, foreign

    try:
        data = parsed.file.read_bytes()
    except OSError as error:
        raise ResultError(f"{parsed.file} cannot be read: {error.strerror}.") from None
    points = foreign(data, str(parsed.file))
    write(parsed.out, encode(points))
    pairs = {pair for point in points for pair in point.figures}
    print(
        f"kvquant import: {len(points)} points of {len(pairs)} pairs in {parsed.out}",
        file=sys.stderr,
    )
    return 0
