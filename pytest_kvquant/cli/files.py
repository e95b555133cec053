"""What the commands print, and the files that they write."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_kvquant.errors import ResultError


def say(text: str) -> None:
    """Print text as it is."""
    sys.stdout.write(text)


def write(path: Path, data: bytes) -> None:
    """Write a file in one step; ``-`` prints.

    Raises:
        ResultError: it cannot be written.
    """
    from pytest_kvquant.machine.files import replace

    if str(path) == "-":
        say(data.decode())
        return
    try:
        replace(path, data)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ResultError(f"{path} cannot be written: {reason}.") from None
