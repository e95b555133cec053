"""Parent side: the process of a worker, whether this run started it or a worker made it."""

from __future__ import annotations

import subprocess
from typing import Protocol

_LONG = 60.0
"""Seconds: a process that is killed ends as soon as the system can."""


class Process(Protocol):
    """What a worker needs of its process; :class:`subprocess.Popen` is one."""

    pid: int

    def kill(self) -> None:
        """End it."""

    def wait(self, timeout: float | None = None) -> int:
        """Its return code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it has not ended in ``timeout`` seconds.
        """


class Server(Protocol):
    """The worker that a copy was made by: only it can wait for its end."""

    def reap(self, pid: int, *, kill: bool, patience: float) -> int | None:
        """How a copy ended, after ``patience`` seconds at most; ``None`` while it runs."""


class Forked:
    """A copy of a worker, seen from the run."""

    def __init__(self, server: Server, pid: int) -> None:
        self._server, self.pid = server, pid
        self._code: int | None = None

    def kill(self) -> None:
        """End it."""
        if self._code is None:
            self._code = self._server.reap(self.pid, kill=True, patience=_LONG)

    def wait(self, timeout: float | None = None) -> int:
        """Its return code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it has not ended in ``timeout`` seconds.
        """
        if self._code is None:
            patience = _LONG if timeout is None else timeout
            self._code = self._server.reap(self.pid, kill=False, patience=patience)
        if self._code is None:
            raise subprocess.TimeoutExpired(f"copy {self.pid} of a worker", timeout or _LONG)
        return self._code
