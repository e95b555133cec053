"""What a pair must cost on these tokens, if every kernel is right: an emulated healthy cell.

An ``f16/f16`` worker rounds each row that is written to its cache as the pair's types and build
would, and its logits are compared with the reference's as a cell's are. One pass per pair over as
many chunks as the decision needs. The figures are kept in the reference store under everything
that they depend on, the types and the build among it: 56 bytes a token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.parent.rows import StoredSide
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError
from pytest_kvquant.inputs.model import Model
from pytest_kvquant.inputs.reference_store import Reference
from pytest_kvquant.inputs.store_folder import StoreError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.kernels import FIGURE_TYPES, TokenFigures
from pytest_kvquant.quality import paths
from pytest_kvquant.quality.control import Control
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.cell import HealthyRecord

WORDS = sum(np.dtype(kind).itemsize // 4 for kind in FIGURE_TYPES)
"""float32 words that the figures of a token take in the store."""

EMULATION = 4
"""Raised when an emulation would come out otherwise: what older ones left is computed again."""

DRAWS = 3
"""Further emulations of a cell whose KL is off by little."""

OpenStore = Callable[[Pair, str, int], Reference]
"""Pair, path (``prefill`` or ``decode``), rows per chunk → where its figures are kept."""


class HealthyGround(NamedTuple):
    """What every emulation of a run stands on."""

    task: Task
    """Of the measured build."""
    model: Model
    open_store: OpenStore


class HealthyCell:
    """The emulated healthy cell of one pair.

    Args:
        source, control: what cells are compared with.
        tail_over: nats; of the tail that the evidence counts.
    """

    def __init__(
        self,
        pair: Pair,
        ground: HealthyGround,
        source: ReferenceSource,
        control: Control,
        tail_over: float,
    ) -> None:
        self.pair, self._ground = pair, ground
        self._source, self._control = source, control
        task = ground.task
        self._stores: dict[str, Reference] = {}
        self._sides: list[StoredSide] = []
        band = control.floor.tie_band
        self.evidence = Evidence(
            len(task.chunks), task.shape.scored, tail_over=tail_over, tie_band=band
        )
        """By the prefill path; complete as far as :meth:`ensure` was asked."""
        self.decode: Evidence | None = None
        """By the decode path."""
        self.draws: list[Evidence] = []
        """The same chunks with other roundings that are as likely; see :meth:`draw_again`."""
        self.problem: str | None = None
        """Why there is no emulation, in words."""
        self.computed = 0
        """Chunks that were computed, and not found in the store."""
        self.seconds = 0.0
        """Wall time of it all."""

    def ensure(self, start: int, stop: int) -> None:
        """See that the evidence has the chunks of a range; ranges come in order.

        What goes wrong is told in :attr:`problem`: a cell's own figures are none the worse.
        """
        if self.problem is not None or stop <= self.evidence.complete:
            return
        with self._tried():
            missing = list(self._missing(start, stop))
            self._compute(missing)
            for at, group in missing:
                self._take(at, group)

    def ensure_decode(self, plan: paths.PathsPlan, stop: int) -> None:
        """See that the evidence of the decode path has the first ``stop`` chunks of the plan.

        The control has them already: the cell was compared with it.
        """
        if self.problem is not None or (self.decode is not None and self.decode.complete >= stop):
            return
        with self._tried():
            if self.decode is None:
                self.decode = self._decode_evidence(plan)
            self._decode_path(plan, self.decode, stop)

    def draw_again(self) -> None:
        """Emulate the chunks so far with other roundings that are as likely.

        Every chunk begins with the same token, which all others attend to: how its rows happen to
        be rounded moves all chunks alike, and no scatter between them shows it.
        """
        task, count = self._ground.task, self.evidence.complete
        if self.problem is not None or self.draws or not count:
            return
        with self._tried():
            for draw in range(1, DRAWS + 1):
                evidence = Evidence(
                    count,
                    self.evidence.scored,
                    tail_over=self.evidence.tail_over,
                    tie_band=self.evidence.tie_band,
                )
                with self._opened(draw) as worker:
                    at = 0
                    for group in task.groups(0, count):
                        for chunk, first, figures in self._figures(worker, at, group):
                            evidence.put(chunk, first, figures)
                        at += len(group)
                self.draws.append(evidence)

    def record(self) -> HealthyRecord:
        """What the emulation told."""
        seen, decode = self.evidence.per_chunk().kl, self.decode
        return HealthyRecord(
            kl_mean=float(seen.mean()) if len(seen) else None,
            decode_kl_mean=float(decode.per_chunk().kl.mean()) if decode is not None else None,
            chunks=len(seen),
            computed=self.computed,
            per_chunk=tuple(seen.tolist()),
            seconds=self.seconds,
            problem=self.problem,
            draws=tuple(float(one.per_chunk().kl.mean()) for one in self.draws),
        )

    @contextmanager
    def _tried(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        except (CellError, StoreError) as error:
            self.problem = str(error)
        finally:
            self.seconds += time.perf_counter() - begun

    def _missing(self, start: int, stop: int) -> Iterator[tuple[int, I32]]:
        task = self._ground.task
        size = task.shape.sequences
        for at, group in zip(range(start, stop, size), task.groups(start, stop), strict=True):
            if at >= self.evidence.complete:
                yield at, group

    def _compute(self, groups: list[tuple[int, I32]]) -> None:
        """See that the figures of these groups are stored."""
        store = self._store("prefill")
        with store.exclusively():
            absent = store.missing([group for _, group in groups])
            if not absent:
                return
            store.evict([groups[number][1] for number in absent])
            with self._opened() as worker:
                for at, group in (groups[number] for number in absent):
                    with store.writing(group) as writer:
                        for _, _, figures in self._figures(worker, at, group):
                            writer.append(packed(figures))
                    self.computed += len(group)

    def _take(self, at: int, group: I32) -> None:
        for within in range(len(group)):
            words = self._store("prefill").rows(group, within, 0, self.evidence.scored)
            self.evidence.put(at + within, 0, unpacked(words))

    def _figures(
        self, worker: Worker, at: int, group: I32
    ) -> Iterator[tuple[int, int, TokenFigures]]:
        """Chunk, first row, figures of a block."""
        task = self._ground.task
        for chunk, first, logits in worker.score(group, task.shape, task.vocabulary, first=at):
            count = len(logits)
            targets = task.chunks[chunk, -task.shape.scored :][first : first + count]
            yield chunk, first, self._source.compare(chunk, first, logits, targets)

    def _decode_evidence(self, plan: paths.PathsPlan) -> Evidence:
        chunks, each = plan.decoded.shape
        over, band = self.evidence.tail_over, self.evidence.tie_band
        return Evidence(chunks, each, tail_over=over, tie_band=band)

    def _decode_path(self, plan: paths.PathsPlan, evidence: Evidence, stop: int) -> None:
        """Chunks that the evidence lacks, from the store or computed."""
        start, each = evidence.complete, plan.decoded.shape[1]
        store, part = self._store("decode", each), plan.part(start, stop)
        key = np.concatenate([part.prefixes, part.decoded], axis=1)
        with store.exclusively():
            if store.missing([key]):
                made = self._decode_evidence(part)
                store.evict([key])
                with self._opened() as worker:
                    rows = self._control.decode.rows[start * each : stop * each]
                    vocabulary = self._ground.task.vocabulary
                    paths.decode_evidence(worker, part, rows, vocabulary, made, stop - start)
                with store.writing(key) as writer:
                    for chunk in range(stop - start):
                        writer.append(packed(_chunk(made.columns, chunk)))
        for chunk in range(stop - start):
            evidence.put(start + chunk, 0, unpacked(store.rows(key, chunk, 0, each)))

    def _store(self, path: str, rows: int = 0) -> Reference:
        if path not in self._stores:
            scored = rows or self.evidence.scored
            self._stores[path] = self._ground.open_store(self.pair, path, scored)
        return self._stores[path]

    @contextmanager
    def _opened(self, draw: int = 0) -> Iterator[Worker]:
        """An f16 worker that rounds as this pair's cells do."""
        task = self._ground.task
        if not self._sides:
            self._sides = stored_sides(task, self.pair)
        with task.workers.timesheet.scope("emulation"), task.workers.shared() as worker:
            worker.library(task.engine.directory)
            worker.model(task.model, gpu_layers=task.gpu_layers)
            heads = heads_by_layer(self._ground.model)
            worker.open_healthy(self._sides, heads, task.shape, draw)
            yield worker


def stored_sides(task: Task, pair: Pair) -> list[StoredSide]:
    """How the build stores a pair's rows; asked in a small context of its own.

    A build that keeps state between contexts may tell a kept worker something else than the cell's
    own census did: then the ratio to the healthy cell is off, no pass, and all is asked again in a
    fresh process.

    Raises:
        CellError: it does not tell, or dies.
    """
    small = msgspec.structs.replace(task.shape, ctx=256, batch=256, ubatch=256)
    with task.workers.timesheet.scope("emulation"), task.workers.shared() as worker:
        worker.library(task.engine.directory)
        worker.model(task.model, gpu_layers=task.gpu_layers)
        return worker.stored(pair, small)


def heads_by_layer(model: Model) -> Mapping[int, int]:
    """KV heads of the layers that have any."""
    return {layer: heads for layer, heads in enumerate(model.n_head_kv) if heads}


def packed(figures: TokenFigures) -> npt.NDArray[np.float32]:
    """Figures of tokens as rows of float32 words, bit by bit; shape ``(n, WORDS)``."""
    columns = [
        np.ascontiguousarray(column).view(np.uint32).reshape(len(column), -1) for column in figures
    ]
    return np.concatenate(columns, axis=1).view(np.float32)


def unpacked(words: npt.NDArray[np.float32]) -> TokenFigures:
    """What :func:`packed` packed."""
    bits, columns, at = np.ascontiguousarray(words).view(np.uint32), [], 0
    for kind in FIGURE_TYPES:
        width = np.dtype(kind).itemsize // 4
        columns.append(np.ascontiguousarray(bits[:, at : at + width]).view(kind).reshape(-1))
        at += width
    return TokenFigures._make(columns)


def _chunk(columns: TokenFigures, chunk: int) -> TokenFigures:
    return TokenFigures._make(column[chunk] for column in columns)
