"""The per-token figures of a run's cells, in files where they were asked for."""

from __future__ import annotations

from pytest_kvquant import __version__
from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.quality import evidence_file
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.session.prepared import Prepared


class EvidenceFiles:
    """Writes a file a cell.

    Args:
        complaints: gets a sentence for each file that could not be written.
    """

    def __init__(self, ready: Prepared, complaints: list[str]) -> None:
        self._ready, self._complaints = ready, complaints

    def keep(self, pair: Pair, evidence: Evidence, budgets: Budgets, figures_in_run: int) -> None:
        """Write the per-token figures where they were asked for."""
        ready = self._ready
        settings, task = ready.settings, ready.task
        if settings.evidence is None or not evidence.complete:
            return
        conditions = evidence_file.EvidenceConditions(
            pair=str(pair),
            model=ready.model.name,
            model_fingerprint=ready.model.fingerprint,
            embedded=ready.embedded,
            corpus=ready.texts.corpus.name,
            corpus_fingerprint=ready.texts.corpus.fingerprint,
            tokens_hash=task.tokens_hash,
            chunk_numbers=tuple(ready.texts.main.record.chunks[: evidence.complete]),
            order=settings.order,
            seed=settings.seed,
            shape=task.shape,
            library=ready.library.build,
            library_hash=ready.library.hash,
            device=ready.library.computing,
            environment=ready.environment.added,
            budgets=dict(budgets),
            rules=task.rules,
            tie_band=evidence.tie_band,
            figures_in_run=figures_in_run,
            digests=evidence.digests(),
            plugin=__version__,
        )
        try:
            evidence_file.write(settings.evidence, conditions, evidence)
        except evidence_file.EvidenceError as error:  # the cell's own figures are not lost with it
            self._complaints.append(str(error))

    def has(self, earlier: Cell) -> bool:
        """Whether the per-token figures of an earlier sitting's cell are there, if asked for."""
        folder = self._ready.settings.evidence
        if folder is None or not earlier.per_chunk:
            return True
        return evidence_file.has(folder, earlier.pair, earlier.digests)
