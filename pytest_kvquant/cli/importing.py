"""``kvquant import``: the JSON of llama-bench or REFRACT, taken into a history."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import write
from pytest_kvquant.errors import ResultError
from pytest_kvquant.machine.files import read_regular


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    imported = commands.add_parser(
        "import", help="take the JSON of llama-bench or REFRACT into a history"
    )
    imported.add_argument("file", type=Path, help="llama-bench -o json, or a report of REFRACT")
    imported.add_argument("out", type=Path, help="file to write, in the folder of the history")
    imported.set_defaults(run=_import)


def _import(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.snapshot import encode, foreign

    try:
        data = read_regular(parsed.file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ResultError(f"{parsed.file} cannot be read: {reason}.") from None
    points = foreign(data, str(parsed.file))
    write(parsed.out, encode(points))
    pairs = {pair for point in points for pair in point.figures}
    print(
        f"kvquant import: in {parsed.out}: points {len(points)}, pairs {len(pairs)}",
        file=sys.stderr,
    )
    return 0
