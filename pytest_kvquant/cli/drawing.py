"""A kept result on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_kvquant.results.result import Result


def screen_width(unknown: int = 110) -> int:
    """Columns of this terminal; where there is none, as many as a table takes."""
    from pytest_kvquant.report.terminal import NARROWEST

    return max(shutil.get_terminal_size((unknown, 24)).columns, NARROWEST)


def drawn(result: Result) -> str:
    """The whole result as this terminal shows it: its width, colours and boxes."""

    from pytest_kvquant.report import terminal

    dumb = os.environ.get("TERM") == "dumb"
    encoding = (sys.stdout.encoding or "utf-8").lower()
    text = terminal.render(
        result,
        width=screen_width(100),
        colour=sys.stdout.isatty() and not dumb and "NO_COLOR" not in os.environ,
        ascii_only=dumb or "utf" not in encoding,
    )
    return f"{text}\n"
