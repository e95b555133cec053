"""The story of a run: prepare → measure → judge → record.

Each part is a file beside this one. Cells are measured when they are first asked for, never twice.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping

import msgspec

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.machine.files import cache_folder
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.report import output
from pytest_kvquant.report.cell_line import as_line, in_a_line
from pytest_kvquant.results.baseline import BaselineRecord
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell, Check
from pytest_kvquant.results.result import Result
from pytest_kvquant.session.accepting import AcceptedCells
from pytest_kvquant.session.account import RunAccount
from pytest_kvquant.session.bounds import Bounds, of_no_use
from pytest_kvquant.session.compared import Compared
from pytest_kvquant.session.continuing import Continuing
from pytest_kvquant.session.evidence import EvidenceFiles
from pytest_kvquant.session.excuses import is_excused
from pytest_kvquant.session.forecast import Forecast
from pytest_kvquant.session.ledger import RollCall
from pytest_kvquant.session.measuring import Measuring
from pytest_kvquant.session.observer import Observer
from pytest_kvquant.session.prepared import prepare
from pytest_kvquant.session.record import Recorder, RunClock
from pytest_kvquant.session.speed import SpeedRun
from pytest_kvquant.session.verdicts import Verdicts
from pytest_kvquant.session.zoo import ZooRun


class Session:
    """One run of the matrix.

    Args:
        settings: resolved settings.
        shell: the variables that the run was started with.
        observer: told how the run goes on.
        vocabulary_only: nothing will be measured: no weights are read.

    Raises:
        RunRefused: from the constructor, everything that is known before the first cell.
    """

    def __init__(
        self,
        settings: Settings,
        shell: Mapping[str, str],
        observer: Observer,
        *,
        vocabulary_only: bool = False,
    ) -> None:
        self.settings, self._observer = settings, observer
        clock = RunClock()
        self.account = account = RunAccount(settings)
        for line in of_no_use(settings, account.matrix):
            observer.note(line)

        # prepare
        self.ready = ready = prepare(
            settings,
            shell,
            account.pairs,
            clock.timesheet,
            observer.note,
            vocabulary_only=vocabulary_only,
        )
        weakref.finalize(self, ready.workers.end)  # no process outlives the run that hired it
        self.model, self.library, self.task = ready.model, ready.library, ready.task
        self.compared = compared = Compared(ready, account.pairs, observer)
        self.kept = kept = Continuing(ready, account, clock.started, observer.note)

        # measure
        self.bounds = bounds = Bounds(ready, compared)
        self._evidence = EvidenceFiles(ready, account.complaints)
        self._measuring = Measuring(ready, compared, bounds, account, self._evidence, observer)
        self.speed = SpeedRun(ready, account.matrix, observer)
        self.zoo = ZooRun(
            settings,
            ready.engine,
            account.pairs,
            folder=cache_folder() / "zoo",
            library=ready.library,
            expect=ready.expect,
            threads=ready.task.shape.threads,
            timesheet=clock.timesheet,
            off_device=self._measuring.off_device,
            zygote=ready.workers.zygote,
        )

        # judge
        self.baselines = AcceptedCells(ready, compared, account)
        self.verdicts = Verdicts(account, bounds, self.speed, self.baselines)

        # record
        self._recorder = Recorder(
            ready,
            account,
            compared,
            self.speed,
            self.zoo,
            self.baselines,
            self.verdicts,
            kept,
            clock,
        )
        self.forecast = Forecast(ready, compared, self.speed.plan, observer)
        self._last_finished = time.perf_counter()
        self._started, self._told_pairs = clock.started, 0

    @property
    def pairs(self) -> list[Pair]:
        """The cells of this run, in order."""
        return self.account.pairs

    @property
    def pairs_asked(self) -> list[Pair]:
        """Cells that the tests of this run ask for."""
        return self.account.selected

    @property
    def ledger(self) -> RollCall:
        """The tests of this run."""
        return self.account.ledger

    @property
    def complaints(self) -> list[str]:
        """Files that could not be written on the way, a sentence each."""
        return self.account.complaints

    def begin(self, *, process: str = "") -> None:
        """What is asked for is known: from here on finished parts are kept.

        Args:
            process: which of pytest-xdist's this is; empty without it, and in the one that
                controls them.
        """
        self.kept.begin(process)
        self.speed.finished = self.kept.finished

    def measure(self, pair: Pair) -> Cell:
        """The record of a cell, measured now if it has not been."""
        account = self.account
        if pair not in account.cells:
            finished = self.kept.finished
            measured = finished.cell(
                pair, lambda: self._measuring.measure(pair), usable=self._evidence.has
            )
            excused = is_excused(
                measured.cell,
                named=str(pair) in self.settings.pairs or pair == REFERENCE,
                accepted=self.baselines.has(pair),
                strict=self.settings.strict,
                declared=self.bounds.declared(pair),
            )
            account.cells[pair] = msgspec.structs.replace(measured.cell, excused=excused)
            if measured.floor is not None:
                account.floors[pair] = measured.floor
            if pair == REFERENCE and (words := self._recorder.doubt(measured.cell)):
                self._observer.note(words)
            finished.keep_reference(self.compared.use())
            self.kept.leave(self.result)
        return account.cells[pair]

    def checked(self, pair: Pair) -> Cell:
        """The record of a measured cell, judged in the light of the whole matrix."""
        return self.verdicts.checked(pair)

    def footprint(self, pair: Pair) -> Check | None:
        """The memory of a cell against its floor; ``None`` where there is no census to go by."""
        self.measure(pair)
        return self.verdicts.footprint(pair)

    def baseline(self, pair: Pair) -> BaselineRecord | None:
        """A cell beside its baseline; ``None`` where there is nothing to compare."""
        return self.baselines.beside(self.measure(pair))

    def ceiling(self, pair: Pair) -> Ceiling:
        """The largest context of a pair against its floor, searched now if it has not been."""
        return self.verdicts.ceiling(self.speed.ceiling(pair))

    def result(self) -> Result:
        """The record of the run so far."""
        return self._recorder.result()

    def finished(self, pair: Pair) -> None:
        """All tests of a cell have run: say how it went, and draw the page of a run that is
        followed."""
        cells = [self.checked(pair)] if pair in self.account.cells else []
        speeds, ceilings = self.speed.cells([pair]), self.speed.ceilings([pair])
        if not (cells or speeds or ceilings):
            return
        parts = (
            next(iter(cells), None),
            next(iter(speeds), None),
            next(iter(map(self.verdicts.ceiling, ceilings)), None),
        )
        now = time.perf_counter()
        seconds, self._last_finished = now - self._last_finished, now
        self._observer.cell(pair, in_a_line(*parts), seconds)
        self._told_pairs += 1
        if self.settings.lines is not None:
            line = as_line(
                *parts,
                run=self._started,
                pair=str(pair),
                number=self._told_pairs,
                of=len(self.account.selected),
                seconds=seconds,
            )
            output.add_line(self.settings.lines, line)
        if self.settings.live:
            output.write_live(self.settings, self.result(), self.account.missing())

    def objections(self) -> list[str]:
        """What cells measured later made of verdicts given before them; each fails the run."""
        return self.verdicts.objections()

    def end_run(self) -> None:
        """Let the journal go."""
        self.kept.end()

    def close(self) -> None:
        """End the workers; what was measured stays."""
        self.ready.workers.end()
