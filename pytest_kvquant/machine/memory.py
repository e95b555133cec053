"""Main memory that is free, for this machine and for the container that it may be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil

from pytest_kvquant.machine.apple.memory import read_memory


class _Accounts(NamedTuple):
    """Where a version of Linux's control groups keeps its books."""

    mount: str
    limit: str
    used: str
    cached: str
    """Entry of ``memory.stat``: file pages that are given up where memory is needed."""


_UNIFIED = _Accounts("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_OLDER = _Accounts(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)


def available(root: Path = Path("/")) -> int:
    """Bytes that processes can still take without swapping.

    What the machine has, or what a control group of this process or one around it leaves, if that
    is less.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    own = read_memory().available if sys.platform == "darwin" else None
    return min([own or psutil.virtual_memory().available, *_left_by_groups(root)])


def _left_by_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        accounts = _OLDER if controllers else _UNIFIED
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            left = _left(root / accounts.mount / group, accounts)
            if left is not None:
                yield left


def _left(group: Path, accounts: _Accounts) -> int | None:
    """Bytes that one group leaves; ``None`` without a limit, or where it is not to be seen."""
    try:
        limit = (group / accounts.limit).read_text(encoding="utf-8").strip()
        if limit == "max":
            return None
        used = int((group / accounts.used).read_text(encoding="utf-8"))
        stat = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    cached = dict(line.split(" ", 1) for line in stat).get(accounts.cached, "0")
    return max(0, int(limit) - used + int(cached))
