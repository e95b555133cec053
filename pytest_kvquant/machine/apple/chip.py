"""The chip of a Mac: its name, its GPU cores, its kinds of CPU cores, the build of its system.

``sysctl machdep.cpu`` as a whole ends with code 1 on Apple silicon since macOS 14, so each name
is asked for by itself. An M1 Max has 24 or 32 GPU cores under one name: the count is part of what
a speed depends on.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from pytest_kvquant.machine.apple.commands import IOREG, PROFILER, SYSCTL, Run, run

ASKED = (
    "machdep.cpu.brand_string",
    "hw.physicalcpu",
    "hw.perflevel0.physicalcpu",
    "hw.perflevel1.physicalcpu",
    "kern.osproductversion",
    "kern.osversion",
)


class Chip(NamedTuple):
    """What stays the same; ``None`` and an empty string where the system does not tell."""

    name: str = ""
    """As ``Apple M5 Max``."""
    cores: int | None = None
    """Physical cores of all kinds."""
    performance_cores: int | None = None
    """Those of the fastest kind: as many threads as llama.cpp takes by itself."""
    efficiency_cores: int | None = None
    gpu_cores: int | None = None
    system: str = ""
    """Version and build, as ``26.4.1 (25E253)``."""


def read_chip(ask: Run = run) -> Chip:
    """The chip of this Mac.

    Args:
        ask: runs a command.
    """
    values = parse_sysctl(ask(SYSCTL, *ASKED))
    gpu = parse_ioreg(ask(IOREG, "-rc", "AGXAccelerator", "-d", "1"))
    shown = ("", None) if gpu[1] else parse_profiler(ask(PROFILER, "SPDisplaysDataType", "-json"))
    version, build = values.get("kern.osproductversion", ""), values.get("kern.osversion", "")
    return Chip(
        name=values.get("machdep.cpu.brand_string", "") or gpu[0] or shown[0],
        cores=_number(values.get("hw.physicalcpu")),
        performance_cores=_number(values.get("hw.perflevel0.physicalcpu")),
        efficiency_cores=_number(values.get("hw.perflevel1.physicalcpu")),
        gpu_cores=gpu[1] or shown[1],
        system=f"{version} ({build})" if version and build else version or build,
    )


def performance_cores(ask: Run = run) -> int | None:
    """Cores of the fastest kind; ``None`` on an Intel Mac, which has one kind."""
    values = parse_sysctl(ask(SYSCTL, "hw.perflevel0.physicalcpu"))
    return _number(values.get("hw.perflevel0.physicalcpu"))


def parse_sysctl(text: str) -> dict[str, str]:
    """Lines of ``sysctl NAME …``.

    >>> parse_sysctl("hw.perflevel0.physicalcpu: 12\\nmachdep.cpu.brand_string: Apple M5 Max\\n")
    {'hw.perflevel0.physicalcpu': '12', 'machdep.cpu.brand_string': 'Apple M5 Max'}
    """
    found = re.findall(r"^([a-z_][\w.]*): (.*)$", text, re.MULTILINE)
    return {name: value.strip() for name, value in found}


def parse_ioreg(text: str) -> tuple[str, int | None]:
    """Name and core count of the GPU, from ``ioreg -rc AGXAccelerator -d 1``.

    >>> parse_ioreg('  |   "model" = "Apple M3 Pro"\\n  |   "gpu-core-count" = 18')
    ('Apple M3 Pro', 18)
    """
    model = re.search(r'"model" = "([^"]+)"', text)
    cores = re.search(r'"gpu-core-count" = (\d+)', text)
    return (model[1] if model else "", int(cores[1]) if cores else None)


def parse_profiler(text: str) -> tuple[str, int | None]:
    """Name and core count of the first GPU, from ``system_profiler SPDisplaysDataType -json``.

    An Intel Mac's and a paravirtual GPU has no core count.
    """
    try:
        entries = json.loads(text)["SPDisplaysDataType"]
        first = next(entry for entry in entries if "sppci_model" in entry)
    except (ValueError, KeyError, TypeError, StopIteration):
        return "", None
    return str(first["sppci_model"]), _number(first.get("sppci_cores"))


def _number(word: object) -> int | None:
    """A count above zero, or nothing."""
    text = str(word or "").strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None
