"""f16 against itself: the control of every side measurement, and the noise floor.

Measured once per run. What f16 shows between two ways of computing the same thing is no fault of
a quantized cell; what is smaller than it cannot be measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from pytest_kvquant.engine.census_record import Census
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.arrays import F32, F64
from pytest_kvquant.numerics.kernels import TokenFigures, compare_rows
from pytest_kvquant.quality import paths, steady
from pytest_kvquant.quality.prefill import require_numbers
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.cell import NoiseFloor, TwoPaths
from pytest_kvquant.results.memory import SteadyMemory
from pytest_kvquant.results.nonfinite import worst

FLOOR_CHUNKS = 2
"""Few sequences in a batch, so that a quarter of n_ubatch still gives each of them enough tokens
for the prefill kernel: what another kernel changes is no noise, and stands in ``shapes``."""


class DecodeLogits:
    """A pair's logits by the decode path, computed as far as a cell needs them.

    Args:
        pair: f16, or what else cells are compared with.
    """

    def __init__(self, task: Task, plan: paths.PathsPlan, pair: Pair) -> None:
        self._task, self._plan, self._pair = task, plan, pair
        self._kept = paths.KeptLogits(plan.decoded.size, task.vocabulary)
        self._chunks = 0

    @property
    def rows(self) -> F32:
        """Shape ``(rows, vocabulary)``; those of chunks that nobody asked for are zeros."""
        return self._kept.rows

    def compute(self, worker: Worker, stop: int) -> None:
        """See that the first ``stop`` chunks are there, in a worker that has the pair open."""
        part, each = self._plan.part(self._chunks, stop), self._plan.decoded.shape[1]
        start = self._chunks * each
        for row, logits in paths.decode_rows(worker, part, self._task.vocabulary):
            self.rows[start + row : start + row + len(logits)] = logits
        self._chunks = stop

    def ensure(self, stop: int) -> None:
        """See that the first ``stop`` chunks are there.

        Raises:
            CellError: the worker cannot be started, or dies.
        """
        if stop <= self._chunks:
            return
        workers = self._task.workers
        with workers.timesheet.scope("control"), workers.shared() as worker:
            self._task.open_cell(worker, self._pair)
            self.compute(worker, stop)


class Control(NamedTuple):
    """The side measurements of f16."""

    plan: paths.PathsPlan
    census: Census
    decode: DecodeLogits
    """Logits of the decode path."""
    chosen: list[list[int]]
    floor: NoiseFloor
    decode_seconds: float
    memory: SteadyMemory | None = None


def measure_control(
    task: Task, plan: paths.PathsPlan, source: ReferenceSource, pair: Pair = REFERENCE
) -> Control:
    """Measure f16, or another pair, in every way that a cell will be measured.

    Raises:
        CellError: the worker dies.
    """
    with task.workers.timesheet.scope("control"), task.workers.shared() as worker:
        task.open_cell(worker, pair)
        census = worker.census()
        decode, first = DecodeLogits(task, plan, pair), plan.part(0, plan.looks[0])
        decode.compute(worker, plan.looks[0])
        for _ in worker.run_script(paths.trajectory_steps(plan), task.vocabulary):
            pass
        chosen = worker.chosen
        memory = steady.measure(worker, pair, task.shape, worker.log_text())
        both = (
            _two_paths(worker, first, decode.rows, task.vocabulary) if first.decoded.size else None
        )
        shapes = all_shapes(worker, task, plan)
        floor = _noise_floor(worker, task, source, shapes)
        floor = msgspec.structs.replace(floor, paths=both)
        return Control(plan, census, decode, chosen, floor, worker.decode_seconds, memory)


def _two_paths(worker: Worker, plan: paths.PathsPlan, decode: F32, vocabulary: int) -> TwoPaths:
    """Bring the tokens of the decode path in at once, and compare.

    Args:
        decode: logits of the decode path, shape ``(rows, vocabulary)``.
    """
    targets, row = plan.targets.ravel(), 0
    found: list[TokenFigures] = []
    for block in worker.run_script(paths.at_once_steps(plan), vocabulary):
        rows = slice(row, row + len(block.logits))
        one_by_one = np.ascontiguousarray(decode[rows])
        found.append(compare_rows(block.logits, one_by_one, targets[rows]))
        row = rows.stop

    def mean(of: Callable[[TokenFigures], F64]) -> float:
        return float(np.concatenate([of(block) for block in found]).mean())

    def perplexity(of: Callable[[TokenFigures], F64]) -> float:
        with np.errstate(over="ignore"):
            return float(np.exp(mean(of)))

    return TwoPaths(
        kl=worst([mean(lambda block: block.kl), 0.0]),
        ppl_prefill=perplexity(lambda block: block.nll_reference),
        ppl_decode=perplexity(lambda block: block.nll_cell),
    )


def all_shapes(worker: Worker, task: Task, plan: paths.PathsPlan) -> dict[str, float]:
    """Mean KL between the batch shapes of an opened cell; leaves it reopened in the last one."""
    scripts = paths.shape_scripts(plan)
    logits = paths.shape_logits(worker, scripts, task.vocabulary)
    worker.reopen(paths.small_ubatch(task.shape, plan))
    alone = {paths.SMALL_UBATCH: scripts["alone"]}
    logits |= paths.shape_logits(worker, alone, task.vocabulary)
    return paths.shape_kl(logits)


def _noise_floor(
    worker: Worker, task: Task, source: ReferenceSource, shapes: dict[str, float]
) -> NoiseFloor:
    ubatch = max(1, task.shape.ubatch // 4)
    threads = task.shape.threads // 2 or task.shape.threads + 1
    other = msgspec.structs.replace(task.shape, ubatch=ubatch, threads=threads)
    worker.reopen(other)
    count = min(FLOOR_CHUNKS, len(task.chunks))
    source.ensure(*next(task.steps()))
    kl, moved = [], []
    for chunk, first, logits in worker.score(task.chunks[:count], other, task.vocabulary):
        reference = source.rows(chunk, first, len(logits))
        none = np.zeros(len(logits), np.int32)
        with task.workers.timesheet.part("comparison"):
            there = compare_rows(reference, logits, none)
            back = compare_rows(logits, reference, none)
        require_numbers(there.nll_reference, f"chunk {chunk}")
        require_numbers(back.nll_reference, f"chunk {chunk} with n_ubatch {ubatch}")
        kl.append(there.kl)
        moved.append(np.abs(there.margin - back.margin))
    return NoiseFloor(
        kl=worst([float(np.concatenate(kl).mean()), 0.0]),
        ubatch=ubatch,
        threads=threads,
        tie_band=2 * float(np.quantile(np.concatenate(moved), 0.999)),
        shapes=shapes,
    )
