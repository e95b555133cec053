"""``kvquant export``: results as SQLite or CSV."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.errors import ResultError


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    export = commands.add_parser("export", help="write results as SQLite or CSV")
    export.add_argument("results", type=Path, nargs="+", help="results from --kv-json")
    where = export.add_mutually_exclusive_group(required=True)
    where.add_argument("--sqlite", type=Path, metavar="PATH", help="database; runs are added to it")
    where.add_argument("--csv", type=Path, metavar="DIR", help="folder; a file for each table")
    export.set_defaults(run=_export)


def _export(parsed: argparse.Namespace) -> int:
    import sqlite3

    from pytest_kvquant import format
    from pytest_kvquant.report.export import to_csv, to_sqlite
    from pytest_kvquant.results.file import read

    results = [read(path) for path in parsed.results]
    try:
        if parsed.sqlite is not None:
            written = to_sqlite(results, parsed.sqlite)
            print(
                f"kvquant export: {format.several(written, 'run')} in {parsed.sqlite}",
                file=sys.stderr,
            )
            return 0
        if len(results) > 1:
            raise ResultError("--csv takes one result: its files have no place for several runs.")
        for path in to_csv(results[0], parsed.csv):
            print(path)
    except (sqlite3.Error, OSError) as error:
        raise ResultError(f"Nothing was written: {error}.") from None
    return 0
