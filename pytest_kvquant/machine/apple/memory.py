"""The memory of a Mac: what is left before it swaps, what it has swapped, how it feels.

A Mac gives memory to anyone who asks, compresses, then swaps, and is of no use to anybody for
minutes. What counts as left is what Activity Monitor calls free and cached: free pages, pages of
files (speculative ones are among them), and what programs marked as purgeable.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pytest_kvquant.machine.apple.chip import parse_sysctl
from pytest_kvquant.machine.apple.commands import SYSCTL, VM_STAT, Run, run

Pressure = Literal["normal", "warning", "critical"]
_LEVELS: dict[str, Pressure] = {"1": "normal", "2": "warning", "4": "critical"}
"""``kern.memorystatus_vm_pressure_level``, of xnu's ``kern_memorystatus.h``."""

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Memory(NamedTuple):
    """All in bytes, but for the counters of pages; ``None`` where the system does not tell."""

    available: int | None = None
    """What can be taken before anything is compressed or swapped."""
    compressed: int | None = None
    """What the compressor takes up."""
    swapped_out: int | None = None
    """Bytes written to swap since the machine was started."""
    swap_used: int | None = None
    pressure: Pressure | None = None


def read_memory(ask: Run = run) -> Memory:
    """How the memory of this Mac is now."""
    values = parse_sysctl(
        ask(SYSCTL, "vm.swapusage", "kern.memorystatus_vm_pressure_level"),
    )
    counted = parse_vm_stat(ask(VM_STAT))
    return counted._replace(
        swap_used=parse_swap_used(values.get("vm.swapusage", "")),
        pressure=_LEVELS.get(values.get("kern.memorystatus_vm_pressure_level", "")),
    )


def parse_vm_stat(text: str) -> Memory:
    """Read ``vm_stat``: counts of pages, whose size is in its first line."""
    size = re.search(r"page size of (\d+) bytes", text)
    if size is None:
        return Memory()
    counts = {
        name.strip('"'): int(value) * int(size[1])
        for name, value in re.findall(r"^(.+?):\s+(\d+)\.$", text, re.MULTILINE)
    }
    given_up = counts.get("File-backed pages", 0) + counts.get("Pages purgeable", 0)
    free = counts.get("Pages free")
    return Memory(
        available=None if free is None else free + given_up,
        compressed=counts.get("Pages occupied by compressor"),
        swapped_out=counts.get("Swapouts"),
    )


def parse_swap_used(text: str) -> int | None:
    """Bytes in swap, from the value of ``vm.swapusage``.

    >>> parse_swap_used("total = 7168.00M  used = 6037.00M  free = 1131.00M  (encrypted)")
    6330253312
    """
    found = re.search(r"\bused = ([\d.]+)([KMG])", text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None
