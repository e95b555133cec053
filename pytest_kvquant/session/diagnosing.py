"""The probe of a run: what f16 stores, kept once; cells compared with it; suspects named.

Every cell is probed shortly: a prompt, then a few single tokens, in the cell's own process. A cell
that fails is probed at length in a process of its own, all tokens as one prompt and all tokens one
at a time; f16's side of it, and a healthy cell of its types, come from a worker of f16's own work.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_kvquant.checks.diagnosis import diagnose
from pytest_kvquant.engine.messages.probe import CellEmulated, Probed, SideFigures
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.diagnosis import ALLOWED, Diagnosis, LayerFigures, PathKL

TOKENS = 192
"""Tokens of a probe; fewer where a chunk has fewer."""

SINGLES = 24
"""Of the short probe's tokens, those that come one at a time."""


class Prober:
    """Asks caches what they hold.

    Args:
        when: ``always`` probes every cell; ``fail`` only cells that fail.
    """

    def __init__(self, task: Task, model: Model, when: str) -> None:
        self._task, self.model, self._when = task, model, when
        self.every = when == "always"
        """Whether every cell is probed, or only those that fail."""
        self._tokens = task.chunks[0][:TOKENS].copy()
        self._widths = head_widths(model)
        self._layers = [number for number, heads in enumerate(model.n_head_kv) if heads]
        self._folder = tempfile.TemporaryDirectory(prefix="pytest-kvquant-")
        self._stored: set[int] = set()

    def share(self, other: Prober) -> None:
        """Use what another probe of the same tokens has stored of f16."""
        self._folder, self._stored = other._folder, other._stored

    def short(self, pair: Pair, worker: Worker) -> Diagnosis | None:
        """Probe an opened cell; ``None`` for f16/f16, which the others are compared with.

        Raises:
            CellError: a worker dies.
        """
        if pair == REFERENCE:
            return None
        singles = min(SINGLES, len(self._tokens) // 2)
        self._store([singles])
        begun = time.perf_counter()
        diagnosis = self._read(self._probe(worker, [singles]), None, failed=False)
        return msgspec.structs.replace(diagnosis, seconds=time.perf_counter() - begun)

    def long(self, pair: Pair) -> Diagnosis | None:
        """Probe a failing cell, in fresh processes.

        Raises:
            CellError: a worker dies.
        """
        if self._when == "off" or pair == REFERENCE:
            return None
        begun, singles = time.perf_counter(), [0, len(self._tokens)]
        self._store(singles)
        with self._task.workers.fresh() as worker:
            self._task.open_cell(worker, pair)
            found = self._probe(worker, singles)
        diagnosis = self._read(found, None, failed=True)
        if not diagnosis.suspects:  # the stored rows are right: is the rest what rounding does?
            diagnosis = self._read(found, self._emulate(found.figures), failed=True)
        return msgspec.structs.replace(diagnosis, seconds=time.perf_counter() - begun)

    def _store(self, singles: list[int]) -> None:
        """See that f16's runs are there."""
        if absent := [count for count in singles if count not in self._stored]:
            with self._task.workers.shared() as reference:
                self._task.open_cell(reference, REFERENCE)
                reference.probe_reference(self._tokens, Path(self._folder.name), absent)
            self._stored |= set(absent)

    def _probe(self, worker: Worker, singles: list[int]) -> Probed:
        return worker.probe(self._tokens, Path(self._folder.name), singles, self._widths)

    def _emulate(self, figures: Sequence[SideFigures]) -> CellEmulated | None:
        """A healthy cell of the types found; ``None`` where the cell's basis is not known."""
        rows = [
            (one.cache, one.place, one.side, one.type, one.rotation, self._width(one))
            for one in figures
            if one.rotation is not None
        ]
        if not rows or len(rows) < len(figures):
            return None
        sides = list(dict.fromkeys(rows))
        with self._task.workers.shared() as worker:
            self._task.open_cell(worker, REFERENCE)
            return worker.emulate_cell(self._tokens, Path(self._folder.name), sides)

    def _width(self, figures: SideFigures) -> int:
        """Elements of a head of one side of a cache."""
        known = figures.cache if figures.cache < len(self._widths) else 0
        return self._widths[known]["KV".index(figures.side)]

    def _read(self, found: Probed, emulated: CellEmulated | None, *, failed: bool) -> Diagnosis:
        propagation = emulated.propagation if emulated else ()
        strayed = {(one.cache, one.place, one.side): one.nmse for one in propagation}
        first = _first_cache(found.figures)
        single = {one.cache for one in found.figures} == {0}
        figures = []
        for one in found.figures:
            cache, place = one.cache, one.place
            clean = cache == first and place == 0
            numbered = single and place < len(self._layers)
            known = {
                "clean": clean,
                "layer": self._layers[place] if numbered else place,
                "expected": None if clean else strayed.get((cache, place, one.side)),
            }
            figures.append(msgspec.convert({**dataclasses.asdict(one), **known}, LayerFigures))
        logits = found.logits
        compared = (
            PathKL(**logits, expected=emulated.kl if emulated else None)
            if set(logits) == {"prefill", "decode"}
            else None
        )
        diagnosis = diagnose(figures, compared, failed=failed)
        if found.problem is None:
            return diagnosis
        missing = (f"the state of the cache is not readable: {found.problem}",)
        return msgspec.structs.replace(diagnosis, against=(*missing, *diagnosis.against))


def head_widths(model: Model) -> list[tuple[int, int]]:
    """Elements of a head, K and V, of each cache; of the whole model where nothing else is known.

    Layers of one cache have heads of one size. V that is a part of K counts as K does.
    """
    shapes = [shape for shape in model.caches if shape.layers]
    found = [(shape.layers[0].dim_k, shape.layers[0].dim_v) for shape in shapes]
    whole = (model.head_dim_k, model.head_dim_v)
    return [(k or whole[0], v or k or whole[1]) for k, v in found] or [whole]


def _first_cache(figures: Sequence[SideFigures]) -> int | None:
    """The cache that holds the model's first layer: where there are several, the one that shows."""
    worst: dict[int, float] = {}
    for one in figures:
        if one.place == 0:
            times = one.nmse / one.explained
            worst[one.cache] = max(times, worst.get(one.cache, 0.0))
    best = min(worst, key=lambda cache: worst[cache], default=None)
    return best if len(worst) == 1 or (best is not None and worst[best] <= ALLOWED) else None


def explain(prober: Prober, pair: Pair, short: Diagnosis | None) -> Diagnosis | None:
    """The diagnosis of a failing cell; the short probe's where the long one dies."""
    try:
        return prober.long(pair) or short
    except CellError as error:
        if short is None:
            return None
        missing = f"a longer probe ended in: {error}"
        return msgspec.structs.replace(short, against=(*short.against, missing))
