"""``kvquant merge``: results of shards or machines, put together."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import refuse_inputs, write
from pytest_kvquant.machine.escape import one_line


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    merge = commands.add_parser(
        "merge",
        help="put results of shards or machines together",
        epilog="exit code: 0 no cell fails; 1 a cell fails; 2 the files cannot be merged",
    )
    merge.add_argument("results", type=Path, nargs="+", help="results from --kv-json")
    merge.add_argument(
        "-o", "--out", type=Path, metavar="PATH", default=Path("-"), help="file (default: print)"
    )
    merge.set_defaults(run=_merge)


def _merge(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report import view
    from pytest_kvquant.results.file import encode, read
    from pytest_kvquant.session.merge import merge, require_whole

    refuse_inputs(parsed.out, parsed.results)
    results = [(str(path), read(path)) for path in parsed.results]
    require_whole(results)
    merged = merge(results)
    write(parsed.out, encode(merged))
    print(one_line(f"kvquant merge: {view.headline(merged)}"), file=sys.stderr)
    return 1 if view.run_tone(merged) == "bad" else 0
