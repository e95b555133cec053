"""Child side: a worker makes fresh ones of itself.

A copy has no thread, no context and no state that a cell could have left: the process that it is
copied from never opens a cell. It costs milliseconds. Where the CPU computes, that process has
loaded the model, and all copies share one set of weights; elsewhere only the library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from pathlib import Path

from pytest_kvquant.engine.child.orphan import end_with
from pytest_kvquant.engine.messages.model import Copied, Reap, Reaped
from pytest_kvquant.engine.protocol import Channel, Message

_TURN = 0.002
"""Seconds between two looks at a copy that has not ended."""


def running_threads() -> int:
    """Threads of this process; a copy of it has only the one that copies."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 0


class ForkMessages:
    """The part of the worker that answers ``fork`` and ``reap``."""

    channel: Channel
    threads: int
    """Those at the start: NumPy's, whose OpenBLAS ends them before a fork and starts them after."""

    def on_fork(self, _message: Message) -> None:
        """Make a copy that answers on one descriptor that follows, and logs to the other."""
        line, log = self.channel.receive_fd(), self.channel.receive_fd()
        sys.stdout.flush()
        sys.stderr.flush()
        ctypes.CDLL(None).fflush(None)  # what the library holds back is not to be printed twice
        if (threads := running_threads()) > self.threads:
            os.close(line)
            os.close(log)
            self.channel.tell(Copied(pid=0, threads=threads - self.threads))
            return
        if pid := os.fork():
            os.close(line)
            os.close(log)
            self.channel.tell(Copied(pid=pid, threads=0))
            return
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        end_with(line)  # no thread of the one that was copied is here
        told, before = Channel(socket.socket(fileno=line)), self.channel
        before.let_go()
        told.spans = before.spans  # the model writes what it does into this list
        told.spans.clear()
        self.channel = told

    def on_reap(self, message: Message) -> None:
        """How a copy ended."""
        asked = message.read(Reap)
        pid = asked.pid
        if asked.kill:
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + asked.patience
        ended, status = os.waitpid(pid, os.WNOHANG)
        while not ended and time.monotonic() < until:
            time.sleep(_TURN)
            ended, status = os.waitpid(pid, os.WNOHANG)
        self.channel.tell(Reaped(code=os.waitstatus_to_exitcode(status) if ended else None))
