"""``kvquant coverage``: corners of kernels that one result covers and another does not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_kvquant.cli.commands import Commands


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    coverage = commands.add_parser(
        "coverage",
        help="corners of kernels that one result covers and another one does not",
        epilog="exit code: 0 the second covers all that the first does; 1 it lacks some",
    )
    coverage.add_argument("before", type=Path, metavar="A", help="result from --kv-json")
    coverage.add_argument("after", type=Path, metavar="B", help="another one")
    coverage.set_defaults(run=_coverage)


def _coverage(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.coverage import compare
    from pytest_kvquant.results.file import read

    text, lacking = compare(read(parsed.before), read(parsed.after))
    sys.stdout.write(text)
    return 1 if lacking else 0
