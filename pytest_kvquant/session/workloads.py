"""What a cell does on other work than the run's own chunks: recall at distance."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pytest_kvquant.checks.recall import points
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality import recall
from pytest_kvquant.quality.recall import Recalled, RecallPlan
from pytest_kvquant.quality.task import I32, Task


class Workloads:
    """Measures f16 once, then every cell in its own process.

    Args:
        task: with the engine of the reference build.
        plan: sequences for recall; ``None``: it is not measured.
    """

    def __init__(self, task: Task, plan: RecallPlan | None) -> None:
        self._task, self._plan = task, plan
        self._recalled: dict[Pair, Recalled | CellError] = {}

    def prepare(self, pair: Pair = REFERENCE) -> None:
        """Measure what a cell is compared with, before the cell's own process holds the device.

        Args:
            pair: whose figures these are.

        Raises:
            CellError: the worker dies; tried once, told every time.
        """
        if self._plan is None:
            return
        if pair not in self._recalled:
            try:
                with self._task.workers.shared() as worker:
                    self._task.open_cell(worker, pair)
                    self._recalled[pair] = self._recall(worker, self._plan)
            except CellError as error:
                self._recalled[pair] = error
        if isinstance(known := self._recalled[pair], CellError):
            raise known

    def add(self, subject: Subject, worker: Worker, compared: Pair, cells: int) -> Subject:
        """The subject with what its opened cell recalls.

        Args:
            compared: the pair that was prepared.
            cells: of the run, among which chance is corrected for.

        Raises:
            CellError: the worker dies.
        """
        reference = self._recalled.get(compared)
        if self._plan is None or not isinstance(reference, Recalled):
            return subject
        found = points(
            self._plan.distances,
            reference,
            self._recall(worker, self._plan),
            subject.budgets.recall,
            cells=cells,
        )
        return subject._replace(cell=msgspec.structs.replace(subject.cell, recall=found))

    def _recall(self, worker: Worker, plan: RecallPlan) -> Recalled:
        return recall.measure(worker, plan, self._task.shape, self._task.vocabulary)


def plan_recall(
    tokens: I32, wanted: int | None, ctx: int, trained: int, note: Callable[[str], None]
) -> RecallPlan | None:
    """The sequences of a run: as long as was asked for, else as its chunks.

    Args:
        tokens: of the whole corpus.
        wanted: tokens; 0 measures nothing.
        trained: tokens that the model was trained for; 0: not known.
        note: told why nothing is measured although it was asked for, or what to expect.
    """
    length = ctx if wanted is None else wanted
    found = recall.plan(tokens, length)
    if wanted and found is None:
        note(
            f"--kv-recall {wanted}: nothing is measured; that takes {recall.SHORTEST} tokens or "
            f"more, and a corpus of twice as many (this one has {len(tokens):,})"
        )
    if wanted and trained and wanted > trained:
        note(f"--kv-recall {wanted} exceeds the {trained:,} tokens that the model was trained for")
    return found
