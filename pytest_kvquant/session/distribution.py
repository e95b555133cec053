"""One run over several devices: pytest-xdist's processes own one each, results become one.

The controlling process checks what was asked for, as a run without ``-n`` does, hands out devices,
and measures nothing. All tests of a cell go to one process. What that process found comes back as
its result; :func:`pytest_kvquant.session.merge.merge` makes one of them, in the order of the
matrix.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from pytest_kvquant.errors import ResultError
from pytest_kvquant.machine.devices import share_out
from pytest_kvquant.matrix import Pair
from pytest_kvquant.report import matrix_rows
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.completeness import Sitting
from pytest_kvquant.results.file import decode, encode
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.speed import SpeedCell
from pytest_kvquant.session.ledger import RollCall
from pytest_kvquant.session.merge import merge

if TYPE_CHECKING:
    from pytest_kvquant.session.run import Session

DEVICE, RESULT = "kvquant_device", "kvquant_result"
"""What a process is told at its start, and tells at its end."""


class Distribution:
    """The controlling process's part.

    Args:
        session: the whole run, prepared and never measured with.
        workers: pytest processes.

    Raises:
        SettingsError: more processes than devices.
    """

    def __init__(self, session: Session, workers: int) -> None:
        self.settings, self._session = session.settings, session
        self._free = share_out(session.settings.devices, workers)
        self._found: list[tuple[str, Result]] = []
        self._merged: Result | None = None
        self._contradiction = ""
        """Why the results of the processes cannot be one, if so."""
        self._begun = time.perf_counter()
        self._heard: set[str] = set()
        self.ledger = RollCall()
        """The tests of all processes."""
        session.begin()

        self.complaints: list[str] = []
        """Files that could not be written on the way; each process tells its own."""

    def end_run(self) -> None:
        """Let the journal go: of a run that is whole nothing has to be taken over."""
        self._session.account.ledger = self.ledger
        self._session.end_run()

    def take_device(self) -> str:
        """A device for a process that is about to start."""
        return self._free.pop(0)

    def end(self, name: str, device: str, text: str | None) -> None:
        """Take a process's device back, and its result where it left one."""
        self._free.append(device)
        if text:
            self._heard.add(name)
            self._found.append(
                (f"{name} on {device}", decode(text.encode(), f"{name} on {device}"))
            )

    @property
    def pairs(self) -> list[Pair]:
        """The cells that the processes share."""
        return self._session.pairs

    @property
    def pairs_asked(self) -> list[Pair]:
        """Cells that the tests ask for: those of the results, for only the processes collect."""
        return [Pair.parse(cell.pair) for cell in self.result().cells]

    def result(self) -> Result:
        """The results of all processes as the one of a run without them, once they have ended."""
        if self._merged is None:
            self._merged = self._session.result()
            try:
                self._merged = self._merge(self._merged)
            except ResultError as error:
                self._contradiction = str(error)
        return self._merged

    def objections(self) -> list[str]:
        """What no process could see alone, in sentences; each fails the run."""
        result = self.result()
        if self._contradiction:
            return [self._contradiction]
        before = {cell.pair: cell.verdict for _, one in self._found for cell in one.cells}
        return [
            f"{cell.pair} is '{cell.verdict}' beside the cells of the other processes"
            for cell in result.cells
            if cell.verdict != before[cell.pair] and matrix_rows.tone(cell.verdict) == "bad"
        ]

    def _merge(self, empty: Result) -> Result:
        self._found += self._session.kept.left_behind(self._heard)
        whole = {
            "complete": self.ledger.whole,
            "unfinished": tuple(self.ledger.unfinished),
            "interruption": self.ledger.reason,
        }
        if not self._found:
            return msgspec.structs.replace(empty, **whole)
        places = {str(pair): at for at, pair in enumerate(self._session.pairs)}

        def place(record: Cell | SpeedCell | Ceiling) -> int:
            return places[record.pair]

        merged = merge(sorted(self._found, key=lambda found: found[0]))
        used = {
            device.name: device
            for _, one in self._found
            for device in one.environment.library.devices
        }
        library = msgspec.structs.replace(merged.environment.library, devices=(*used.values(),))
        return msgspec.structs.replace(
            merged,
            **whole,
            sittings=_as_one(merged.sittings, empty.environment.started),
            environment=msgspec.structs.replace(
                merged.environment, library=library, started=empty.environment.started
            ),
            cells=tuple(sorted(merged.cells, key=place)),
            speed=tuple(sorted(merged.speed, key=place)),
            ceilings=tuple(sorted(merged.ceilings, key=place)),
            baselines=empty.baselines,
            invocation=empty.invocation,
            seconds=time.perf_counter() - self._begun,
        )


def _as_one(sittings: tuple[Sitting, ...], started: str) -> tuple[Sitting, ...]:
    """The sittings of all processes: those since this run started are its own."""
    found: dict[str, Sitting] = {}
    for one in sittings:
        name = min(one.started, started)
        known = found.get(name, Sitting(started=name))
        found[name] = Sitting(
            started=name,
            cells=(*known.cells, *one.cells),
            speeds=(*known.speeds, *one.speeds),
            ceilings=(*known.ceilings, *one.ceilings),
        )
    return tuple(found[name] for name in sorted(found))


def device_of(workerinput: Mapping[str, object]) -> str:
    """The device of this process."""
    return str(workerinput[DEVICE])


def report_back(workeroutput: dict[str, object], result: Result) -> None:
    """Send a process's result to the controlling one."""
    workeroutput[RESULT] = encode(result).decode()
