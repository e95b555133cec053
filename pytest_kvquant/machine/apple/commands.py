"""Run one of the system's own programs and take what it prints."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Run = Callable[..., str]
"""Words of a command line to what it prints; nothing where it cannot be run."""

SYSCTL = "/usr/sbin/sysctl"
IOREG = "/usr/sbin/ioreg"
PROFILER = "/usr/sbin/system_profiler"
PMSET = "/usr/bin/pmset"
VM_STAT = "/usr/bin/vm_stat"
CAFFEINATE = "/usr/bin/caffeinate"

PATIENCE = 10.0
"""Seconds; system_profiler takes one or two."""


def run(*command: str) -> str:
    """What a command prints. Its exit code says nothing here: sysctl gives 1 for one unknown name
    among many, and prints the others."""
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", errors="replace")
