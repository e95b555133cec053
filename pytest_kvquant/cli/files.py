"""What the commands print, and the files that they write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from pytest_kvquant.errors import ResultError


def say(text: str) -> None:
    """Print text as it is."""
    sys.stdout.write(text)


def write(path: Path, data: bytes) -> None:
    """Write a file in one step, and the folder that it goes to; ``-`` prints.

    Raises:
        ResultError: it cannot be written.
    """
    from pytest_kvquant.machine.files import replace

    if str(path) == "-":
        say(data.decode())
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, data)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ResultError(f"{path} cannot be written: {reason}.") from None


def refuse_inputs(out: Path, inputs: Iterable[Path]) -> None:
    """A file that a command reads is not written over by it.

    Raises:
        ResultError: it would be.
    """
    if str(out) != "-" and any(_is_same(out, path) for path in inputs):
        raise ResultError(f"{out} is one of the files that are read; write to another one.")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.realpath(one) == os.path.realpath(other)
    except ValueError:  # no file can be called that
        return False
