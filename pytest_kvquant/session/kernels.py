"""The kernels of a cell, examined beside its quality."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.coverage_plan import level
from pytest_kvquant.quality.examiner import Examined, Examiner
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.library import Library
from pytest_kvquant.session.speed_plan import make_plan

CELLS = 512
"""Tokens of the context that is filled, at least; from ``standard`` on as many as a chunk has."""

BESIDE = 128
"""Cells beyond the deepest depth: the largest batch of the ladder fits."""


def make_examiner(
    settings: Settings, task: Task, model: Model, library: Library, pairs: Sequence[Pair]
) -> Examiner | None:
    """The examiner of a run of these pairs; ``None`` where coverage is off."""
    name = settings.coverage_level
    if name == "off":
        return None
    on_cpu = not library.gpus_in_use(settings.gpu_layers)
    depths = _visited(settings, model, on_cpu=on_cpu) if name == "full" else ()
    chunk = CELLS if name == "minimal" else settings.ctx
    cells = max([CELLS, chunk, *(depth + BESIDE for depth in depths)])
    if model.context_trained:
        cells = min(cells, model.context_trained)
    ubatch = min(settings.ubatch, cells)
    examined = Examined(
        task.engine,
        model,
        settings.gpu_layers,
        np.resize(task.chunks.ravel(), cells),
        ubatch=ubatch,
        threads=1 if name == "minimal" else task.shape.threads,
        seed=settings.seed,
        build=library.build,
        reproducers=_folder(settings),
        scenario_files=tuple(Path(one) for one in settings.scenarios),
        pairs=tuple(pairs),
        workers=task.workers,
    )
    return Examiner(examined, level(name, cells=cells, ubatch=ubatch, depths=depths))


def _visited(settings: Settings, model: Model, *, on_cpu: bool) -> tuple[int, ...]:
    """Depths at which the run is anyway: those that were asked for, or that speed is timed at."""
    if settings.depths is not None or settings.speed == "off":
        return settings.depths or ()
    return make_plan(settings, model.context_trained, on_cpu=on_cpu).depths


def with_kernels(subject: Subject, examiner: Examiner | None) -> Subject:
    """The subject with what was found about its kernels and those of f16."""
    if examiner is None:
        return subject
    found = examiner.examine(subject.pair)
    cell = msgspec.structs.replace(subject.cell, kernels=found)
    reference = examiner.examine(REFERENCE)
    return subject._replace(cell=cell, reference_kernels=reference)


def _folder(settings: Settings) -> Path:
    """Where reproducers go: beside the evidence, or a folder of the system's for such files."""
    if settings.evidence is not None:
        return settings.evidence / "nodes"
    return Path(tempfile.gettempdir()) / "kvquant-nodes"
