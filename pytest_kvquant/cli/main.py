"""The console script ``kvquant``; ``python -m pytest_kvquant`` is the same.

A command is a file of this folder with a function ``add(commands)``, which declares its arguments
and the function that runs it: that takes the parsed arguments and returns the exit code. One that
loads a library or starts runs says so beside it (``set_defaults(run=…, measures=True)``); the
others read results anywhere. What a command needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

from pytest_kvquant import cli
from pytest_kvquant.cli.completion import add_completion
from pytest_kvquant.cli.versions import Versions
from pytest_kvquant.errors import NOT_WINDOWS, KVQuantError
from pytest_kvquant.machine.escape import one_line

CLOSED_PIPE = 128 + 13
"""As a shell counts SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code, or 2 with one line for what cannot work.

    Whoever reads the output may stop before its end (``kvquant explain | head``): nothing is said
    then, and the code is that of a program which a closed pipe has ended.
    """
    parsed = parser().parse_args(arguments)
    if sys.platform == "win32" and getattr(parsed, "measures", False):
        print(f"kvquant {parsed.command}: {NOT_WINDOWS}", file=sys.stderr)
        return 2
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed again at exit
        return CLOSED_PIPE
    except KVQuantError as error:
        print(one_line(f"kvquant {parsed.command}: {error}"), file=sys.stderr)
        return 2
    return code


def parser() -> argparse.ArgumentParser:
    """All commands, each found by its file."""
    whole = argparse.ArgumentParser(prog="kvquant", description="The commands of pytest-kvquant.")
    whole.add_argument("--version", action=Versions, help="plugin, bindings, library")
    add_completion(whole)
    commands = whole.add_subparsers(dest="command", required=True)
    for found in sorted(pkgutil.iter_modules(cli.__path__), key=lambda found: found.name):
        add = getattr(importlib.import_module(f"{cli.__name__}.{found.name}"), "add", None)
        if add is not None:
            add(commands)
    return whole
