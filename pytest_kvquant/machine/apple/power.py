"""Where a Mac takes its power from, whether it saves it, and how to keep it from sleeping."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_kvquant.machine.apple.commands import CAFFEINATE, PMSET, Run, run


def power_source(ask: Run = run) -> str:
    """``ac``, ``battery`` or ``unknown``."""
    return parse_power_source(ask(PMSET, "-g", "batt"))


def low_power(ask: Run = run) -> bool | None:
    """Whether low-power mode is on; ``None`` where the system does not tell."""
    return parse_low_power(ask(PMSET, "-g"))


def parse_power_source(text: str) -> str:
    """Read ``pmset -g batt``.

    >>> parse_power_source("Now drawing from 'AC Power'")
    'ac'
    >>> parse_power_source("Now drawing from 'Battery Power'")
    'battery'
    """
    found = re.search(r"Now drawing from '(AC|Battery|UPS) Power'", text)
    if found is None:
        return "unknown"
    return "ac" if found[1] == "AC" else "battery"


def parse_low_power(text: str) -> bool | None:
    """Read ``pmset -g``: ``lowpowermode 1``, or ``powermode 1`` where there are three modes.

    >>> parse_low_power(" lowpowermode         1"), parse_low_power(" powermode            2")
    (True, False)
    """
    found = re.search(r"^\s*(?:low)?powermode\s+(\d)\s*$", text, re.MULTILINE)
    return None if found is None else found[1] == "1"


@contextmanager
def awake(program: str = CAFFEINATE, *, wanted: bool = sys.platform == "darwin") -> Iterator[bool]:
    """Keep a Mac from sleeping while the block runs, and no longer than this process.

    ``caffeinate -i`` holds off idle sleep (not that of a closed lid), ``-w`` ends with the process
    that it is given, so that a killed run leaves nothing behind.

    Yields:
        Whether it is so.
    """
    held = _hold(program) if wanted and Path(program).is_file() else None
    try:
        yield held is not None
    finally:
        if held is not None:
            held.terminate()
            held.wait()


def _hold(program: str) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(
            [program, "-i", "-w", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
