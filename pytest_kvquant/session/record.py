"""The record of a run: everything that it was asked, what it ran on, and what it found."""

from __future__ import annotations

import datetime
import math
import platform
import time

import msgspec
import psutil

from pytest_kvquant import __version__
from pytest_kvquant.engine.parent.timesheet import Timesheet, summed
from pytest_kvquant.machine.hardware import cpu_name
from pytest_kvquant.machine.versions import driver_version, os_version
from pytest_kvquant.report.advice import advise
from pytest_kvquant.results.cell import Cell, NoiseFloor
from pytest_kvquant.results.conditions import (
    EnvironmentRecord,
    ModelRecord,
    ReferenceRecord,
    SettingsRecord,
)
from pytest_kvquant.results.plausible import doubt
from pytest_kvquant.results.result import Result, RunTiming, counted
from pytest_kvquant.session.accepting import AcceptedCells
from pytest_kvquant.session.account import RunAccount
from pytest_kvquant.session.compared import Compared
from pytest_kvquant.session.continuing import Continuing
from pytest_kvquant.session.prepared import Prepared
from pytest_kvquant.session.speed import SpeedRun
from pytest_kvquant.session.verdicts import Verdicts
from pytest_kvquant.session.zoo import ZooRun


class RunClock:
    """When a run started, and where its seconds went."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        """UTC, ISO 8601."""
        self.timesheet = Timesheet()
        self.timesheet.enter("run", "start", _seconds_before())

    @property
    def seconds(self) -> float:
        """Since the run started."""
        return time.perf_counter() - self._begun

    def timing(self) -> RunTiming:
        """Seconds by part and by scope."""
        spent = self.timesheet.seconds()
        return RunTiming(
            wall=sum(spent.values()), parts=summed(spent, by=1), scopes=summed(spent, by=0)
        )


class Recorder:
    """Makes the record from what the parts of a run know."""

    def __init__(
        self,
        ready: Prepared,
        account: RunAccount,
        compared: Compared,
        speed: SpeedRun,
        zoo: ZooRun,
        baselines: AcceptedCells,
        verdicts: Verdicts,
        kept: Continuing,
        clock: RunClock,
    ) -> None:
        self._ready, self._account, self._compared = ready, account, compared
        self._speed, self._zoo, self._baselines = speed, zoo, baselines
        self._verdicts, self._kept, self._clock = verdicts, kept, clock

    def result(self) -> Result:
        """The record of the run so far."""
        account, compared, speed = self._account, self._compared, self._speed
        by_cell = self._ready.settings.compare_cells
        controls = compared.references.known()
        floors = [*account.floors.values(), *(one.floor for one in controls)]
        cells = tuple(map(self._verdicts.checked, account.measured))
        speeds = speed.cells(account.pairs)
        ceilings = tuple(map(self._verdicts.ceiling, speed.ceilings(account.pairs)))
        return Result(
            environment=self._environment(),
            model=self._model(),
            corpus=self._ready.texts.main.record,
            texts=tuple(one.record for one in self._ready.texts.further),
            settings=self._settings(),
            reference=self._reference(),
            floor=max(floors, key=_noise, default=None),
            cells=cells,
            speed=speeds,
            advice=advise(cells, speeds, ceilings, by_cell=by_cell),
            ceilings=ceilings,
            unmeasured=counted(account.unmeasured),
            zoo=self._zoo.cells,
            hardware=speed.hardware if speed.on else None,
            baselines=self._baselines.record(),
            invocation=tuple(account.invocation),
            complete=account.ledger.whole,
            unfinished=tuple(account.ledger.unfinished),
            interruption=account.ledger.reason,
            selection=account.selection(),
            sittings=self._kept.finished.sittings(),
            decode_seconds=self._decode_seconds(),
            seconds=self._clock.seconds,
            timing=self._clock.timing(),
        )

    def doubt(self, reference: Cell) -> str:
        """Why f16's perplexity is out of all reason, in one line; empty where it is not."""
        task, texts = self._ready.task, self._ready.texts
        if reference.quality is None:
            return ""
        ppl = reference.quality.prefill.ppl_reference
        return doubt(ppl, task.vocabulary, texts.main.record.unigram_ppl)

    def _model(self) -> ModelRecord:
        model = self._ready.model
        return ModelRecord(
            path=model.path,
            name=model.name,
            architecture=model.architecture,
            fingerprint=model.fingerprint,
            size=model.size,
            vocabulary=self._ready.task.vocabulary,
            context_trained=model.context_trained,
        )

    def _reference(self) -> ReferenceRecord:
        ready, compared = self._ready, self._compared
        usage = self._kept.finished.reference(compared.use())
        return ReferenceRecord(
            computed=usage.computed,
            reused=usage.reused,
            damaged=usage.damaged,
            decode_seconds=compared.references.decode_seconds,
            library=ready.other_build,
            by_cell=ready.settings.compare_cells,
            file=str(ready.logits.path) if ready.logits is not None else "",
        )

    def _decode_seconds(self) -> float:
        cells = self._account.cells.values()
        measured = sum(cell.timing.decode for cell in cells if cell.timing)
        return measured + self._compared.decode_seconds

    def _environment(self) -> EnvironmentRecord:
        library = self._ready.library
        return EnvironmentRecord(
            library=library,
            machine=platform.machine(),
            system=f"{platform.system()} {platform.release()}",
            cpu=cpu_name(platform.processor()),
            memory=psutil.virtual_memory().total,
            python=platform.python_version(),
            plugin=__version__,
            variables_dropped=self._ready.environment.dropped,
            variables_set=self._ready.environment.added,
            started=self._clock.started,
            os_version=os_version(),
            driver=driver_version(gpu=bool(library.gpus_in_use(self._ready.task.gpu_layers))),
            worker_hook=self._ready.environment.hook,
        )

    def _settings(self) -> SettingsRecord:
        settings, task = self._ready.settings, self._ready.task
        return SettingsRecord(
            **msgspec.to_builtins(task.shape),
            gpu_layers=task.gpu_layers,
            order=settings.order,
            seed=settings.seed,
            profile=settings.profile,
            cap=task.rules.cap,
            early=task.rules.early,
            strict=settings.strict,
            setup=self._ready.setup,
        )


def _noise(floor: NoiseFloor) -> float:
    """How loud; a floor that is no number is the loudest."""
    return math.inf if math.isnan(floor.kl) else floor.kl


def _seconds_before() -> float:
    """Since this process was started: the interpreter, pytest, imports."""
    return max(0.0, time.time() - psutil.Process().create_time())
