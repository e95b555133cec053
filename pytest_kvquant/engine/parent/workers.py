"""The workers of one build: fresh ones, copies of one that has loaded everything, or one kept.

=======  ===========================================================================================
fresh    A process of its own for each: interpreter, library, device and weights start again.
fork     Copies of one process that has loaded library and model and never opens a cell: as fresh,
         for milliseconds. Where only the CPU computes and the system is Linux.
warm     One process for all, with proof after each cell (:class:`Proof`); what is not proved is
         measured again in a fresh one: on Linux a copy of one that has met no device
         (:class:`Zygote`), which loads library, device and weights itself.
=======  ===========================================================================================

Of a kept worker there is one set of weights on a device at a time. A fresh one may have another
beside it, for f16's own work while its cell is open.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, TypeVar

from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.kept import KeptWorker, Proof, SteadinessCheck
from pytest_kvquant.engine.parent.process import NoCopy
from pytest_kvquant.engine.parent.timesheet import Timesheet
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.parent.zygote import Zygote
from pytest_kvquant.errors import CellError, CellSpoilt
from pytest_kvquant.results.library import Library

W = TypeVar("W", bound=Worker)

Isolation = Literal["fork", "warm", "fresh"]


def usual_isolation(library: Library) -> Isolation:
    """How cells are kept apart where nothing was asked for.

    A process that has started a GPU's driver cannot be copied.
    """
    alone = set(library.backends) <= {"CPU"} and not library.gpus
    return "fork" if sys.platform == "linux" and alone else "warm"


class Workers:
    """Makes workers with library and model loaded.

    Args:
        model: path of the GGUF file.
        timesheet: told where the time goes.
        note: told once where copies cannot be made.
        zygote: what workers of this engine begin as, if others share it.
    """

    def __init__(
        self,
        engine: Engine,
        model: str,
        gpu_layers: int,
        isolation: Isolation,
        *,
        timesheet: Timesheet | None = None,
        note: Callable[[str], None] = lambda _: None,
        zygote: Zygote | None = None,
    ) -> None:
        self.engine, self.isolation = engine, isolation
        self.timesheet = timesheet or Timesheet()
        self.zygote = zygote or Zygote(engine, self.timesheet)
        self.check: SteadinessCheck | None = None
        """What a kept worker is asked between two cells; none is kept without it."""
        self.beside: Workers | None = None
        """Of another build, with weights on the same device: they rest while these work."""
        self._model, self._gpu_layers, self._note = model, gpu_layers, note
        self._holding: dict[str, Worker] = {}
        """What holds weights between two cells: a ``server`` or the ``kept`` one."""
        weakref.finalize(self, _end, self._holding)
        self._first: Proof | None = None
        self._busy = self._doubted = False

    @property
    def keeps(self) -> bool:
        """Whether cells may be measured one after another in one process."""
        return self.isolation == "warm" and self.check is not None and not self._doubted

    @contextmanager
    def doubting(self) -> Iterator[None]:
        """Whatever is hired in this block is fresh."""
        self._doubted = True
        try:
            yield
        finally:
            self._doubted = False

    def holds(self, engine: Engine, model: str, gpu_layers: int) -> bool:
        """Whether these are workers of that build with that model."""
        own = self.engine, self._model, self._gpu_layers
        return own == (engine, model, gpu_layers)

    @contextmanager
    def fresh(self) -> Iterator[Worker]:
        """A worker without anything of another cell in it.

        Raises:
            CellError: it cannot be started.
        """
        if self.isolation == "fork" and (copy := self._copy()) is not None:
            with copy:
                yield copy
            return
        for own in (self, self.beside):
            if own is not None and not own._busy:
                own.rest()
        with self._started(Worker) as worker:
            self._load(worker)
            yield worker

    @contextmanager
    def shared(self) -> Iterator[Worker]:
        """A worker for f16's own work; it may lie between two steps of the cell in ``kept``.

        What comes of it may be stored, and outlives the cell: so f16 is proved before.

        Raises:
            CellSpoilt: f16 is not itself beside the cell.
            CellError: it cannot be started, or dies.
        """
        if not self.keeps:
            with self.fresh() as worker:
                yield worker
        elif not self._busy:
            with self.kept() as worker:
                yield worker
        else:
            worker = self._kept
            with worker.aside():
                assert self._first is not None
                if found := self._prove().other_logits(self._first):
                    raise CellSpoilt(f"{found}, beside it")
                yield worker

    @contextmanager
    def kept(self) -> Iterator[Worker]:
        """The worker that is kept, for the next cell; gone where the block ends in an error.

        Raises:
            CellError: it cannot be started.
        """
        worker = self._proved()
        worker.begin()
        self._busy = True
        try:
            yield worker
        except BaseException:
            self._busy = False
            self.rest()
            raise
        self._busy = False

    def objection(self) -> str:
        """Why the last cell of the kept worker does not count, in words; nothing if it does.

        A worker that there is an objection to is not kept; of one that is gone there is none.
        """
        if "kept" not in self._holding:
            return ""
        assert self._first is not None
        try:
            found = self._prove().objection(self._first)
        except CellError as error:
            found = f"its process does not decode f16 after it: {error}"
        if found:
            self.rest()
        return found

    def adopt(self, worker: KeptWorker) -> None:
        """Take over a worker that has loaded everything and opened no cell."""
        if self.isolation == "fork":
            self._holding["server"] = worker
        elif self.isolation == "warm":
            self._holding["kept"], self._first = worker, None
        else:
            worker.__exit__(None, None, None)

    def rest(self) -> None:
        """End whatever holds weights; the next worker loads them again."""
        _end(self._holding)

    def end(self) -> None:
        """End every process."""
        self.rest()
        self.zygote.end()

    def _started(self, kind: type[W]) -> W:
        """A worker that has loaded nothing."""
        if self.isolation == "warm":
            return self.zygote.start(kind)
        return kind(self.engine, timesheet=self.timesheet)

    def _copy(self) -> Worker | None:
        """A copy of the server; ``None`` where none can be made."""
        for _ in range(2):
            with (
                self.timesheet.part("start"),
                suppress(CellError),
            ):  # a server that died is replaced
                if "server" not in self._holding:
                    made = Worker(self.engine, timesheet=self.timesheet)
                    self._holding["server"] = made
                    self._load(made)
                try:
                    return Worker(
                        self.engine, timesheet=self.timesheet, server=self._holding["server"]
                    )
                except NoCopy as error:
                    self._note(f"workers are not copied but started one by one: {error}")
                    self.isolation = "fresh"
                    break
            self.rest()
        return None

    def _proved(self) -> KeptWorker:
        """The worker that is kept; before its first cell it shows what f16 gives there."""
        try:
            if "kept" not in self._holding:
                self._first = None
                self._holding["kept"] = self._started(KeptWorker)
                self._load(self._kept)
            if self._first is None:
                self._first = self._prove()
        except BaseException:
            self.rest()
            raise
        return self._kept

    def _prove(self) -> Proof:
        assert self.check is not None
        with self.timesheet.part("proof"):
            return self._kept.prove(self.check)

    @property
    def _kept(self) -> KeptWorker:
        worker = self._holding["kept"]
        assert isinstance(worker, KeptWorker)
        return worker

    def _load(self, worker: Worker) -> None:
        worker.library(self.engine.directory)
        worker.model(self._model, gpu_layers=self._gpu_layers)


def _end(holding: dict[str, Worker]) -> None:
    while holding:
        holding.popitem()[1].__exit__(None, None, None)
