"""``kvquant alone -- COMMAND``: one run at a time, awake, after the machine has cooled down."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from pytest_kvquant.cli.commands import Commands
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine.alone import cool_down, lock_file
from pytest_kvquant.machine.apple.power import awake
from pytest_kvquant.machine.locks import held


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "alone", help="run a command while no other of this user runs so, after cooling down"
    )
    parser.add_argument(
        "--cool",
        type=float,
        default=0.0,
        metavar="MINUTES",
        help="wait at most so long until the thermal pressure is nominal (macOS)",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=720.0,
        metavar="MINUTES",
        help="wait at most so long for another run (default: 720)",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    parser.set_defaults(run=_run, measures=True)


def _run(parsed: argparse.Namespace) -> int:
    return run(parsed.words, cool=parsed.cool, wait=parsed.wait)


def run(command: Sequence[str], *, cool: float, wait: float) -> int:
    """The exit code of the command.

    Args:
        command: its words, ``--`` before them or not.
        cool, wait: minutes.

    Raises:
        SettingsError: there is none, it cannot be started, or another run does not end.
    """
    words = list(command[1:] if command[:1] == ["--"] else command)
    if not words:
        raise SettingsError("there is no command; write it behind --.")
    path = lock_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(held(path, _tell, patience=0, most=60 * wait))
        except TimeoutError:
            raise SettingsError(f"another run still holds {path} after {wait:g} minutes.") from None
        stack.enter_context(awake())
        level = cool_down(60 * cool) if cool > 0 else None
        if level not in (None, "nominal"):
            _tell(f"the thermal pressure is still {level}: speeds are those of a hot machine")
        try:
            return subprocess.run(words, check=False).returncode
        except OSError as error:
            raise SettingsError(f"{words[0]} cannot be started: {error.strerror}.") from None


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
