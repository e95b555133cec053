"""Whether this machine begins to suffer: memory that runs out, pages that go to swap.

A search for the largest context, or two caches side by side, must stop before the machine is of no
use to anybody: macOS lets a process take more than there is and swaps for minutes, and no limit
that a process could be given holds there.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from pytest_kvquant import format
from pytest_kvquant.machine import memory
from pytest_kvquant.machine.apple.memory import read_memory

RESERVE = 0.04
"""Share of main memory that is left to the system and to other programs."""

LEAST_RESERVE = 256 << 20
"""Bytes."""

MOST_SWAPPED = 64 << 20
"""Bytes that may go to swap while this process works; some always do."""


class Condition(NamedTuple):
    """How the memory of the machine is; ``None`` where its system does not tell."""

    available: int
    """Bytes that can be taken before anything is swapped."""
    swapped_out: int | None = None
    """Bytes that went to swap since the machine was started."""
    pressure: str | None = None
    """macOS: ``normal``, ``warning`` or ``critical``."""


def read_condition() -> Condition:
    """The condition of this machine, now; some milliseconds on macOS."""
    if platform.system() == "Darwin":
        found = read_memory()
        return Condition(memory.available(), found.swapped_out, found.pressure)
    return Condition(memory.available(), _linux_swapped_out(Path("/proc/vmstat")))


def _linux_swapped_out(file: Path) -> int | None:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:  # hidden, or another system
        return None
    counts = dict(line.split(" ", 1) for line in lines)
    return int(counts["pswpout"]) * 4096 if "pswpout" in counts else None


class Strain:
    """Compares the machine with how it was when the watch began.

    Args:
        total: bytes of main memory.
        read: the condition, now.
    """

    def __init__(
        self, total: int | None = None, read: Callable[[], Condition] = read_condition
    ) -> None:
        self._read, self._first = read, read()
        total = psutil.virtual_memory().total if total is None else total
        self._reserve = min(max(LEAST_RESERVE, round(RESERVE * total)), self._first.available // 2)

    def complaint(self) -> str | None:
        """What is wrong by now, as a clause; ``None``: nothing."""
        now, first = self._read(), self._first
        if now.pressure == "critical" and first.pressure != "critical":
            return "the system calls its memory pressure critical"
        if now.swapped_out is not None and first.swapped_out is not None:
            swapped = now.swapped_out - first.swapped_out
            if swapped > MOST_SWAPPED:
                return f"{format.size(swapped)} went to swap since it began"
        if now.available < self._reserve:
            return (
                f"{format.size(now.available)} of memory are left, and {format.size(self._reserve)}"
                " are kept for the system and other programs"
            )
        return None
