"""``kvquant llama-bench``: the speeds of a result as llama-bench prints them."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.files import say
from pytest_kvquant.errors import ResultError


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    llama_bench = commands.add_parser(
        "llama-bench", help="print the speeds of a result as llama-bench -o json does"
    )
    llama_bench.add_argument("result", type=Path, help="result from --kv-json")
    llama_bench.set_defaults(run=_llama_bench)


def _llama_bench(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.llama_bench import as_llama_bench
    from pytest_kvquant.results.file import read

    result = read(parsed.result)
    if not any(cell.tests for cell in result.speed):
        raise ResultError(f"{parsed.result} holds no speeds; run pytest with --kv-speed on.")
    say(as_llama_bench(result.speed, result.settings.setup))
    return 0
