"""The prefill path of one cell: chunks drawn and compared with the reference until it is enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import ReferenceBroken
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task


def measure(
    worker: Worker,
    task: Task,
    source: ReferenceSource,
    *,
    tail_over: float,
    tie_band: float,
    settled: Callable[[Evidence], bool],
    on_chunk: Callable[[int], None],
    on_step: Callable[[int, int], None] = lambda _start, _stop: None,
) -> Evidence:
    """Draw chunks through an opened worker until every gate is settled, or to the cap.

    Args:
        tail_over: nats above which a token counts for the tail.
        settled: whether the evidence so far decides everything that will be judged by it.
        on_chunk: told how many chunks are complete.
        on_step: told between which chunks all are complete now, before it is asked whether that
            is enough.

    Raises:
        CellError: the worker dies.
    """
    timesheet = task.workers.timesheet
    evidence = Evidence(len(task.chunks), task.shape.scored, tail_over=tail_over, tie_band=tie_band)

    def enough(_: int = 0) -> bool:
        on_chunk(evidence.complete)
        if not evidence.finite:
            return True
        with timesheet.part("decisions"):
            return task.rules.early and settled(evidence)

    for start, stop in task.steps():
        source.ensure(start, stop)
        scoring = worker.score(
            task.chunks[start:stop], task.shape, task.vocabulary, first=start, enough=enough
        )
        for chunk, first, logits in scoring:
            count = len(logits)
            targets = task.chunks[chunk, -task.shape.scored :][first : first + count]
            with timesheet.part("comparison"):
                figures = source.compare(chunk, first, logits, targets)
                require_numbers(figures.nll_reference, f"chunk {chunk}")
                evidence.put(chunk, first, figures)
        on_step(start, evidence.complete)
        if enough():
            break
    return evidence


def require_numbers(nll_reference: npt.NDArray[np.float64], where: str) -> None:
    """See that f16 has probabilities at all.

    Args:
        nll_reference: −ln p of tokens under f16, nats; +inf is a masked token, and legal.
        where: what the tokens are of, in words.

    Raises:
        ReferenceBroken: a row of its logits holds a NaN or +inf, or nothing but −inf.
    """
    if (bad := np.flatnonzero(np.isnan(nll_reference))).size:
        raise ReferenceBroken(
            f"The f16 reference itself is no number ({where}, row {int(bad[0])} of this block): "
            "nothing can be compared with it. f16/f16 is broken in this build on this device."
        )
