"""A process that has started and met no device: workers begin as its copies.

An interpreter with its modules and the library of a GPU build takes half a second to start. What is
copied has loaded them and asked the library nothing, so that it has no thread and no device, which
a copy could not share; each copy then starts the device for itself, as a fresh process does.
"""

from __future__ import annotations

import sys
import weakref
from contextlib import suppress
from typing import TypeVar

from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.process import NoCopy
from pytest_kvquant.engine.parent.timesheet import Timesheet
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError

W = TypeVar("W", bound=Worker)


class Zygote:
    """Starts workers of one engine; its own process starts with the first of them."""

    def __init__(self, engine: Engine, timesheet: Timesheet) -> None:
        self._engine, self._timesheet = engine, timesheet
        self._holding: list[Worker] = []
        self._copies = sys.platform == "linux"
        weakref.finalize(self, _end, self._holding)

    def start(self, kind: type[W]) -> W:
        """A worker that has loaded nothing: a copy, or where none can be made a process of its own.

        What is copied may have died: then this one starts by itself, and the next is a copy again.

        Raises:
            CellError: it cannot be started.
        """
        if self._copies:
            with self._timesheet.part("start"), suppress(CellError):
                if not self._holding:
                    self._holding.append(Worker(self._engine, timesheet=self._timesheet))
                try:
                    return kind(self._engine, timesheet=self._timesheet, server=self._holding[0])
                except NoCopy:
                    self._copies = False
            self.end()
        return kind(self._engine, timesheet=self._timesheet)

    def end(self) -> None:
        """End its process; the next start makes another one."""
        _end(self._holding)


def _end(holding: list[Worker]) -> None:
    while holding:
        holding.pop().__exit__(None, None, None)
