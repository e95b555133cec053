"""``kvquant show``: a kept result, or one pair of it with its gates."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.cli.drawing import drawn
from pytest_kvquant.cli.files import say


def add(commands: Commands) -> None:
    """Add the command to those of ``kvquant``."""
    show = commands.add_parser("show", help="print a kept result, or one pair of it with its gates")
    show.add_argument("result", type=Path, help="result from --kv-json")
    show.add_argument("pair", nargs="?", metavar="K/V", help="one pair, in full")
    show.set_defaults(run=_show)


def _show(parsed: argparse.Namespace) -> int:
    from pytest_kvquant.report.one_pair import one_pair
    from pytest_kvquant.results.file import read

    result = read(parsed.result)
    if parsed.pair is None:
        say(drawn(result))
    else:
        say(one_pair(result, parsed.pair))
    return 0
