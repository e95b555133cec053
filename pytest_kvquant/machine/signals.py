"""SIGTERM and SIGHUP end a run as Ctrl-C does: what is there is written, workers are stopped.

A CI step that runs out of time sends SIGTERM, a terminal that is closed SIGHUP. Left alone, either
ends pytest on the spot and everything measured with it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pytest_kvquant.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Watch:
    """The handlers of one run; a signal that was ignored when it began stays so (``nohup``)."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, signal._HANDLER] = {}
        self.seen: signal.Signals | None = None
        """The signal that ended the run."""

    def begin(self) -> None:
        """Take over; only Python's main thread can, elsewhere nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                self._before[number] = signal.signal(number, self._stop)

    def end(self) -> None:
        """Give the handlers back."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.seen = signal.Signals(number)
        raise Stopped(number)


@contextmanager
def deferred() -> Iterator[None]:
    """Let nothing interrupt the block: a signal that comes meanwhile takes effect at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: caught.append(number))
        for number in (signal.SIGINT, *SIGNALS)
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        signal.raise_signal(caught[0])
