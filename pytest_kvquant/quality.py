"""The quality of one cell: chunks drawn, compared with the reference, judged, until it is enough.

Who computes the reference, and when, is here too: a step of chunks is computed once, by a worker
of its own, right before the first cell that needs it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.budgets import BatchedBudgets, Budgets
from pytest_kvquant.engine.client import Engine, Shape, Worker
from pytest_kvquant.errors import CellError, CellWithoutReference
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics import gates
from pytest_kvquant.numerics.evidence import ChunkFigures, Evidence
from pytest_kvquant.numerics.gates import Gate, Rules
from pytest_kvquant.numerics.kernels import compare_rows
from pytest_kvquant.reference import Reference, StoreError

I32 = npt.NDArray[np.int32]


class Task(NamedTuple):
    """What every cell of a run is measured on."""

    engine: Engine
    model: str
    gpu_layers: int
    vocabulary: int
    shape: Shape
    chunks: I32
    """Tokens in the order drawn, shape ``(most chunks, ctx)``."""
    rules: Rules

    @property
    def tokens_hash(self) -> str:
        """SHA-256 over the tokens, 16 hex digits."""
        return hashlib.sha256(self.chunks.tobytes()).hexdigest()[:16]

    def steps(self) -> Iterator[tuple[int, int]]:
        """Chunk ranges between the looks of the rules: ``(0, 4)``, ``(4, 8)``, …"""
        looks = [min(look, len(self.chunks)) for look in self.rules.schedule]
        yield from itertools.pairwise(dict.fromkeys([0, *looks, len(self.chunks)]))

    def groups(self, start: int, stop: int) -> list[I32]:
        """The chunks of a range as they are batched together."""
        size = self.shape.sequences
        return [self.chunks[at : min(at + size, stop)] for at in range(start, stop, size)]

    def open_cell(self, worker: Worker, pair: Pair) -> None:
        """Make a worker ready to measure a pair."""
        worker.library(self.engine.directory)
        worker.model(self.model, gpu_layers=self.gpu_layers)
        worker.open(pair, self.shape)


class ReferenceSource:
    """Hands out the reference's logits, computing what is not stored yet.

    Args:
        task: with the engine of the build that computes it.
        on_chunks: told how many chunks of the reference have just been computed.
        pair: whose logits they are.
    """

    def __init__(
        self,
        task: Task,
        reference: Reference,
        on_chunks: Callable[[int], None],
        pair: Pair = REFERENCE,
    ) -> None:
        self._task, self._reference, self._on_chunks = task, reference, on_chunks
        self._pair = pair
        self._place: dict[int, tuple[I32, int]] = {}
        self.usage = reference.usage
        self.decode_seconds = 0.0

    def ensure(self, start: int, stop: int) -> None:
        """See that the chunks of a range are stored and intact.

        Raises:
            CellError: the worker that computes them dies, or they cannot be stored.
        """
        if start in self._place:
            return
        groups = self._task.groups(start, stop)
        with _as_cell_error(self._pair), self._reference.exclusively():
            if absent := [groups[number] for number in self._reference.missing(groups)]:
                self._reference.make_room(absent)
                self._compute(absent)
        places = [(group, within) for group in groups for within in range(len(group))]
        self._place |= dict(zip(range(start, stop), places, strict=True))

    def rows(self, chunk: int, first: int, count: int) -> npt.NDArray[np.float32]:
        """Scored logits of a chunk that was ensured, shape ``(count, vocabulary)``.

        Raises:
            CellError: they are gone.
        """
        group, within = self._place[chunk]
        with _as_cell_error(self._pair):
            return self._reference.rows(group, within, first, count)

    def _compute(self, groups: list[I32]) -> None:
        task = self._task
        with Worker(task.engine) as worker:
            task.open_cell(worker, self._pair)
            for group in groups:
                with self._reference.writing(group) as writer:
                    for rows in worker.score(group, task.shape, task.vocabulary):
                        writer.append(rows.logits)
                self._on_chunks(len(group))
            self.decode_seconds += worker.decode_seconds


@contextmanager
def _as_cell_error(pair: Pair) -> Iterator[None]:
    """Without a reference this cell has no figures; the run goes on."""
    try:
        yield
    except StoreError as error:
        raise CellWithoutReference(str(error)) from None
    except CellError as error:
        what = "The f16 reference" if pair == REFERENCE else f"{pair} of the reference build"
        raise type(error)(f"{what}: {error}", log=error.log) from None


def measure(
    worker: Worker,
    task: Task,
    source: ReferenceSource,
    budgets: Budgets,
    *,
    tie_band: float,
    figures_in_run: int,
    on_chunk: Callable[[int], None],
) -> Evidence:
    """Draw chunks through an opened worker until every gate is settled, or to the cap.

    Args:
        figures_in_run: gated figures of the whole run; see :func:`gates.settled`.
        on_chunk: told how many chunks are complete.

    Raises:
        CellError: the worker dies.
    """
    evidence = Evidence(
        len(task.chunks), task.shape.scored, tail_over=budgets.kl_tail_over, tie_band=tie_band
    )

    def enough(_: int = 0) -> bool:
        on_chunk(evidence.complete)
        if not evidence.finite:
            return True
        judged = judge(evidence, budgets, task.rules)
        return task.rules.early and all(gates.settled(gate, figures_in_run) for gate in judged)

    for start, stop in task.steps():
        source.ensure(start, stop)
        scoring = worker.score(
            task.chunks[start:stop], task.shape, task.vocabulary, first=start, enough=enough
        )
        for chunk, first, logits in scoring:
            count = len(logits)
            targets = task.chunks[chunk, -task.shape.scored :][first : first + count]
            figures = compare_rows(source.rows(chunk, first, count), logits, targets)
            evidence.put(chunk, first, figures)
        if enough():
            break
    return evidence


def judge(evidence: Evidence, budgets: Budgets, rules: Rules) -> tuple[Gate, ...]:
    """The gates of a cell on the evidence so far, in the order of the report."""
    return judge_figures(evidence.per_chunk(), evidence.scored, budgets, rules)


def judge_figures(
    seen: ChunkFigures, tokens: int, budgets: BatchedBudgets, rules: Rules
) -> tuple[Gate, ...]:
    """The gates of a cell from its figures per chunk, of ``tokens`` scored tokens each."""
    return (
        gates.judge_kl_mean(seen.kl, budgets.kl_mean, rules),
        gates.judge_kl_tail(
            seen.tail,
            budgets.kl_tail,
            rules,
            m_tok=tokens,
            over=budgets.kl_tail_over,
            kl=seen.kl,
        ),
        gates.judge_ln_ppl(seen.ln_ppl, budgets.ln_ppl, rules),
        gates.judge_top1_flips(seen.flips, budgets.top1_flips, rules, m_tok=tokens, kl=seen.kl),
    )
