"""What a cell does on other work than the run's own chunks: further texts, disturbed text, recall
at distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.recall import FIRST_LOOK, points, settled
from pytest_kvquant.checks.robustness import compared as compared_with_clean
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.checks.texts import figures, is_settled
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.errors import CellError
from pytest_kvquant.inputs.reference_store import Reference
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.quality import prefill, recall
from pytest_kvquant.quality.recall import Recalled, RecallPlan
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.recall import RecallPoint
from pytest_kvquant.session.texts import TextTask


class Workloads:
    """Measures f16 once, then every cell in its own process.

    Args:
        task: with the engine of the reference build.
        plan: sequences for recall; ``None``: it is not measured.
        texts: further texts, with that engine too.
        open_store: the stored logits of a pair on a text.
    """

    def __init__(
        self,
        task: Task,
        plan: RecallPlan | None,
        texts: Sequence[TextTask],
        open_store: Callable[[Pair, TextTask], Reference],
    ) -> None:
        self._task, self._plan, self._texts = task, plan, texts
        self._open_store = open_store
        self._sources: dict[tuple[Pair, str], ReferenceSource] = {}
        self._recalled: dict[Pair, Recalled | CellError] = {}

    def prepare(self, pair: Pair = REFERENCE) -> None:
        """Measure what a cell is compared with, before the cell's own process holds the device:
        recall at distance.

        Args:
            pair: whose figures these are.

        Raises:
            CellError: the worker dies; tried once, told every time.
        """
        if pair not in self._recalled and self._plan is not None:
            try:
                workers = self._task.workers
                with workers.timesheet.scope("control"), workers.shared() as worker:
                    self._task.open_cell(worker, pair)
                    self._recalled[pair] = self._recall(worker, self._plan)
            except CellError as error:
                self._recalled[pair] = error
        if isinstance(known := self._recalled.get(pair), CellError):
            raise known

    def add(self, subject: Subject, worker: Worker, compared: Pair, cells: int) -> Subject:
        """The subject with what its opened cell does on other work.

        Args:
            compared: the pair that was prepared.
            cells: of the run, among which chance is corrected for.

        Raises:
            CellError: the worker dies.
        """
        if self._texts:
            worker.reopen(self._task.shape)
        for text in self._texts:
            add = self._add_disturbed if text.disturbance else self._add_text
            subject = add(subject, worker, text, compared, cells)
        return self._add_recall(subject, worker, compared, cells)

    def _add_text(
        self, subject: Subject, worker: Worker, text: TextTask, compared: Pair, cells: int
    ) -> Subject:
        rows = 1 + sum(not one.disturbance for one in self._texts)
        figures_in_run = len(registry.gates()) * rows * max(1, cells)
        budgets, rules = subject.budgets, text.task.rules
        evidence = self._drawn(
            subject,
            worker,
            text,
            compared,
            lambda seen: is_settled(seen, budgets, rules, figures_in_run),
        )
        found = figures(text.record.name, evidence, budgets, rules, figures_in_run)
        texts = (*subject.cell.texts, found)
        return subject._replace(cell=msgspec.structs.replace(subject.cell, texts=texts))

    def _add_disturbed(
        self, subject: Subject, worker: Worker, text: TextTask, compared: Pair, cells: int
    ) -> Subject:
        evidence = self._drawn(subject, worker, text, compared, lambda _: False)
        tests = sum(bool(one.disturbance) for one in self._texts) * max(1, cells)
        found = compared_with_clean(
            text.disturbance,
            subject.cell.per_chunk["kl"],
            evidence.per_chunk().kl.tolist(),
            subject.budgets["robustness"],
            tests,
        )
        known = (*subject.cell.robustness, found)
        return subject._replace(cell=msgspec.structs.replace(subject.cell, robustness=known))

    def _drawn(
        self,
        subject: Subject,
        worker: Worker,
        text: TextTask,
        compared: Pair,
        enough: Callable[[Evidence], bool],
    ) -> Evidence:
        key = compared, text.record.tokens_hash
        if key not in self._sources:
            store = self._open_store(compared, text)
            self._sources[key] = ReferenceSource(
                text.task, store, lambda _done, _all: None, compared
            )
        assert subject.floor is not None
        return prefill.measure(
            worker,
            text.task,
            self._sources[key],
            tail_over=subject.budgets["kl_tail_over"],
            tie_band=subject.floor.tie_band,
            settled=enough,
            on_chunk=lambda _: None,
        )

    def _add_recall(self, subject: Subject, worker: Worker, compared: Pair, cells: int) -> Subject:
        reference = self._recalled.get(compared)
        if self._plan is None or not isinstance(reference, Recalled):
            return subject
        found = self._recall_points(worker, self._plan, reference, subject.budgets["recall"], cells)
        return subject._replace(cell=msgspec.structs.replace(subject.cell, recall=found))

    def _recall_points(
        self, worker: Worker, plan: RecallPlan, reference: Recalled, keep: float, cells: int
    ) -> tuple[RecallPoint, ...]:
        """Half of the passages, and the others where these do not decide."""
        distances, halves = plan.distances, plan.halves()
        if halves is None:
            whole = self._recall(worker, plan)
            return points(distances, reference, whole, keep, cells=cells)
        first = self._recall(worker, halves[0])
        before = reference.every_other()
        found = points(distances, before, first, keep, cells=cells, share=FIRST_LOOK)
        if settled(found):
            return found
        whole = first.among(self._recall(worker, halves[1]))
        return points(distances, reference, whole, keep, cells=cells, share=1 - FIRST_LOOK)

    def _recall(self, worker: Worker, plan: RecallPlan) -> Recalled:
        return recall.measure(worker, plan, self._task.shape, self._task.vocabulary)


def plan_recall(
    tokens: I32,
    wanted: int | None,
    ctx: int,
    trained: int,
    bos: int | None,
    note: Callable[[str], None],
) -> RecallPlan | None:
    """The sequences of a run: as long as was asked for, else as its chunks.

    Args:
        tokens: of the whole corpus.
        wanted: tokens; 0 measures nothing.
        trained: tokens that the model was trained for; 0: not known.
        bos: token that every sequence starts with, if there is one.
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
    return found._replace(sequences=from_start(found.sequences, bos)) if found else None
