"""Real evidence of a fault: the real worker, model and corpus, one process per fault and dose."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from faults import weights
from faults.catalogue import Fault
from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.child.main import HOOK
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.inputs.reference_store import ReferenceStore
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import TokenFigures
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.quality import prefill as quality
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task
from pytest_kvquant.session.account import figures_per_cell
from pytest_kvquant.session.observer import Listener
from pytest_kvquant.session.run import Session

HERE = Path(__file__).parent


class Laboratory:
    """The embedded model and corpus, and every kind of fault planted into them.

    Args:
        folder: for the reference and for models with changed weights.
        chunks: how many chunks each cell gets.
        types: cache types of the clean matrix.
        keep: where evidence is kept from one run of the suite to the next; it is used again only
            for the same faults, library, model and tokens.
    """

    def __init__(
        self, folder: Path, chunks: int, types: Sequence[str] = (), keep: Path | None = None
    ) -> None:
        self.folder, self._keep = folder, keep
        settings = Settings(
            chunks=chunks, coverage="off", store=folder / "store", types=tuple(types)
        )
        self.session = Session(settings, dict(os.environ), Listener())
        self.cells = len(self.session.pairs)
        self.figures_in_run = figures_per_cell() * self.cells
        self._tie_band = self.session.compared.control().floor.tie_band

    def budgets(self, pair: str) -> Budgets:
        """The packaged budgets of a cell."""
        return self.session.bounds.budgets(Pair.parse(pair))

    def hook(self, fault: Fault, dose: float) -> dict[str, str]:
        """The variables that plant a fault in a worker."""
        plan = {
            "name": fault.name,
            "dose": dose,
            "heads": weights.kv_heads(Path(self.session.task.model)),
        }
        return {HOOK: str(HERE / "hook.py"), "KVQUANT_FAULT": json.dumps(plan)}

    def clean(self, pair: Pair) -> Evidence:
        """A cell as it is."""
        task = self.session.task
        name = f"clean {pair}"
        return self._once(
            name,
            len(task.chunks),
            pair,
            lambda: self._evidence(task, pair, self.session.compared.source),
        )

    def planted(self, fault: Fault, dose: float, chunks: int) -> Evidence:
        """A cell with a fault, on the first chunks."""
        pair = Pair.parse(fault.pair)
        name = f"{fault.name} {dose:g} {pair}"
        return self._once(name, chunks, pair, lambda: self._plant(fault, dose, chunks))

    def _plant(self, fault: Fault, dose: float, chunks: int) -> Evidence:
        session, pair = self.session, Pair.parse(fault.pair)
        session.compared.source.ensure(0, len(session.task.chunks))
        task = session.task._replace(chunks=session.task.chunks[:chunks])
        if fault.seam == "weights":
            path = self.folder / f"{fault.name}-{dose:g}.gguf"
            weights.plant(Path(task.model), path, fault.name, dose)
            return self._evidence(task._replace(model=str(path)), pair, session.compared.source)
        hooked = task._replace(engine=self._hooked(fault, dose))
        source = session.compared.source
        if pair == REFERENCE:  # here it is the reference that is wrong, and the cell is right
            source = self._own_reference(hooked)
            hooked = task
        return self._evidence(hooked, pair, source)

    def _evidence(self, task: Task, pair: Pair, source: ReferenceSource) -> Evidence:
        rules = Rules(cap=len(task.chunks), early=False)
        with Worker(task.engine) as worker:
            task.open_cell(worker, pair)
            return quality.measure(
                worker,
                task._replace(rules=rules),
                source,
                tail_over=self.session.bounds.budgets(pair)["kl_tail_over"],
                tie_band=self._tie_band,
                settled=lambda _: False,
                on_chunk=lambda _: None,
            )

    def _once(
        self, name: str, chunks: int, pair: Pair, measure: Callable[[], Evidence]
    ) -> Evidence:
        if self._keep is None:
            return measure()
        session = self.session
        about = [
            name, chunks, session.library.hash, session.model.fingerprint, session.task.tokens_hash,
            (HERE / "hook.py").read_text(), (HERE / "weights.py").read_text(),
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        path = self._keep / f"{name.replace('/', '-')} {key}.npz"
        if not path.exists():
            np.savez(path, **measure().tokens()._asdict())
        columns = TokenFigures(**np.load(path))
        tail_over = session.bounds.budgets(pair)["kl_tail_over"]
        evidence = Evidence(
            chunks, session.task.shape.scored, tail_over=tail_over, tie_band=self._tie_band
        )
        for chunk in range(len(columns.kl)):  # fewer where a NaN ended it
            evidence.put(chunk, 0, TokenFigures._make(column[chunk] for column in columns))
        return evidence

    def _hooked(self, fault: Fault, dose: float) -> Engine:
        engine = self.session.ready.engine
        variables = engine.environment.variables | self.hook(fault, dose)
        environment = engine.environment._replace(variables=variables)
        return msgspec.structs.replace(engine, environment=environment)

    def _own_reference(self, task: Task) -> ReferenceSource:
        store = ReferenceStore(self.folder / "faulty", 1 << 34)
        shape = task.shape
        reference = store.open({"fault": "one"}, rows=shape.scored, vocabulary=task.vocabulary)
        return ReferenceSource(task, reference, lambda *_: None)
