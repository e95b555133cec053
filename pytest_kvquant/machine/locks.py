"""Locks between runs that say what they wait for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

PATIENCE = 2.0
"""Seconds of waiting after which a person is told."""

BESIDE = ".pid"
"""What the name of a lock's file ends in where its holder's process id stands."""


@contextmanager
def held(
    path: Path, tell: Callable[[str], None], *, patience: float = PATIENCE, most: float = -1
) -> Iterator[None]:
    """Hold a lock between processes; a holder that dies, however, lets go of it.

    Args:
        path: of the lock's file; the holder's process id stands beside it.
        tell: told once, after ``patience`` seconds, who is waited for.
        most: seconds that are waited then; −1: for as long as it takes.

    Raises:
        OSError: the file cannot be made; a :class:`TimeoutError` of them: not in time.
    """
    lock, beside = FileLock(path), path.with_name(f"{path.name}{BESIDE}")
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        tell(f"waiting for {_holder(beside)}, which holds {path}")
        lock.acquire(timeout=most)
    try:
        # A file of its own: the next one who waits truncates that of the lock.
        with suppress(OSError):
            beside.unlink(missing_ok=True)  # never through a link of that name
            beside.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        lock.release()


def _holder(beside: Path) -> str:
    """Who holds a lock, in words."""
    with suppress(OSError, ValueError):
        number = int(beside.read_text(encoding="ascii"))
        if psutil.pid_exists(number):
            return f"process {number}"
    return "another process"
