"""Locks between runs that say what they wait for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE = 2.0
"""Seconds of waiting after which a person is told."""


@contextmanager
def held(path: Path, tell: Callable[[str], None], *, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a lock between processes; a holder that dies, however, lets go of it.

    Args:
        path: of the lock's file; the holder's process id stands beside it.
        tell: told once, after ``patience`` seconds, who is waited for.

    Raises:
        OSError: the file cannot be made.
    """
    lock, beside = FileLock(path), path.with_name(f"{path.name}.pid")
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        tell(f"waiting for {_holder(beside)}, which holds {path}")
        lock.acquire()
    try:
        # A file of its own: the next one who waits truncates that of the lock.
        with suppress(OSError):
            beside.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        lock.release()


def _holder(beside: Path) -> str:
    """Who holds a lock, in words."""
    try:
        return f"process {int(beside.read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        return "another process"
