"""``kvquant bench-op``: the corners that failed, as lines for ``test-backend-ops`` of llama.cpp."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import say


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    parser = commands.add_parser(
        "bench-op", help="print lines for test-backend-ops: the kernel corners that failed"
    )
    parser.add_argument("result", type=Path, help="result from --kv-json")
    parser.set_defaults(run=_bench_op)


def _bench_op(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.backend_ops import lines
    from pytest_kvquant.results.file import read

    result = read(parsed.result)
    found = lines(result.cells)
    if not found:
        examined = any(cell.kernels is not None for cell in result.cells)
        why = "no corner failed" if examined else "no kernel was examined (--kv-coverage)"
        print(f"kvquant bench-op: {why}", file=sys.stderr)
        return 0
    say("\n".join(found) + "\n")
    return 0
