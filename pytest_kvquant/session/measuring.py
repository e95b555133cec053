"""Measuring a cell of a run: whatever goes wrong is that cell's verdict."""

from __future__ import annotations

import traceback

from pytest_kvquant.checks.distinct import twins
from pytest_kvquant.config.expectations import off_device, substitute, substitutes
from pytest_kvquant.engine.options import flag
from pytest_kvquant.errors import CellError, ReferenceBroken, RunRefused
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.session import isolation
from pytest_kvquant.session.account import RunAccount
from pytest_kvquant.session.bounds import Bounds
from pytest_kvquant.session.cell_inputs import CellInputs
from pytest_kvquant.session.compared import Compared
from pytest_kvquant.session.diagnosing import Prober
from pytest_kvquant.session.evidence import EvidenceFiles
from pytest_kvquant.session.finished import MeasuredCell
from pytest_kvquant.session.kernels import make_examiner
from pytest_kvquant.session.observer import Observer, phase
from pytest_kvquant.session.prepared import Prepared

DOING = {
    "census": "types of its cache",
    "probe": "contents of its cache",
    "paths": "decode path, greedy text, batch shapes",
    "workloads": "recall and other texts",
    "kernels": "kernels and cache operations",
    "explanation": "diagnosis",
}
"""Parts of a cell's work, by their names in the timesheet, that a person who waits is told of."""


class Measuring:
    """Measures cells, one at a time.

    Args:
        evidence: where per-token figures go.
    """

    def __init__(
        self,
        ready: Prepared,
        compared: Compared,
        bounds: Bounds,
        account: RunAccount,
        evidence: EvidenceFiles,
        observer: Observer,
    ) -> None:
        self._ready, self._compared, self._bounds = ready, compared, bounds
        self._account, self._evidence, self._observer = account, evidence, observer
        settings, task, model = ready.settings, ready.task, ready.model
        self._prober = Prober(task, model, settings.probe)
        self._examiner = make_examiner(settings, task, model, ready.library, account.pairs)
        task.workers.timesheet.watch = self._tell
        self.off_device = frozenset(
            pair for pair in account.pairs if off_device(pair, ready.expect, ready.library.device)
        )

    def _tell(self, part: str) -> None:
        if part in DOING:
            self._observer.step(DOING[part], 0, 0)

    def measure(self, pair: Pair) -> MeasuredCell:
        """A cell measured now; a fault of our own code is that cell's verdict, told once."""
        try:
            with phase(self._observer, "cell" if self._account.cells else "first", pair):
                found = self._measure(pair)
        except RunRefused as error:
            if isinstance(error, ReferenceBroken):
                self._account.broken = str(error)
            found = Cell(pair=str(pair), verdict="no-reference", message=str(error))
        except Exception as error:
            found = Cell(
                pair=str(pair),
                verdict="error",
                message=f"pytest-kvquant itself failed ({type(error).__name__}: {error}); please "
                "report it with the traceback.",
                traceback=traceback.format_exc(),
            )
        control = self._compared.references.known_of(pair)
        return MeasuredCell(cell=found, floor=control.floor if control is not None else None)

    def _measure(self, pair: Pair) -> Cell:
        ready, compared = self._ready, self._compared
        cap = len(ready.task.chunks)

        def on_chunk(done: int) -> None:
            self._observer.step(f"{done} of at most {cap} chunks", done, 0)

        on_chunk(0)
        source = compared.references.source(pair)
        try:
            for start, stop in ready.task.steps() if ready.reference_first else ():
                source.ensure(start, stop)
            control, budgets = compared.control(pair), self._bounds.budgets(pair)
            compared.workloads.prepare(compared.references.pair(pair))
        except CellError as error:
            where = " of the reference build" if ready.other_build is not None else ""
            return Cell(
                pair=str(pair),
                verdict=error.verdict,
                message=f"{compared.references.pair(pair)}{where}, which it is compared with, "
                f"failed: {error}",
                log=error.log,
            )
        inputs = CellInputs(
            ready.task,
            source,
            control,
            ready.model,
            ready.library,
            self._account.cells_in_run,
            self._prober,
            compared.workloads,
            off_device=self.off_device,
            kv_offload=flag(ready.settings.setup, "kv-offload", True),
            emulation=compared.emulation,
            quantizers=compared.quantizers,
            owned=self._bounds.owned(pair),
            kl_packaged=self._bounds.packaged(pair, "kl_mean"),
            same_pair=ready.settings.compare_cells,
            examiner=self._examiner,
            expect=ready.settings.expect,
            fail_fast=ready.settings.fail_fast,
        )
        expected = substitute(pair, substitutes(ready.expect))
        measured = isolation.measure(pair, budgets, expected, inputs, on_chunk, self._doubt)
        if measured.evidence is not None:
            self._evidence.keep(pair, measured.evidence, budgets, self._account.figures_in_run)
        return measured.cell

    def _doubt(self, own: Cell) -> str:
        """Whether the logits of a cell are those of another one, in words."""
        same = twins(own, list(self._account.cells.values()))
        return f"its logits were those of {', '.join(same)}" if same else ""
