"""A pair as a test of one's own sees it: its name, its logits for any tokens, and a live context of
it, with that of f16 beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.arrays import F32, F64
from pytest_kvquant.numerics.kernels import compare_rows

if TYPE_CHECKING:
    from pytest_kvquant.session.run import Session


class LiveLogits(NamedTuple):
    """Logits of the pair and of f16/f16 for the same tokens after the same history."""

    cell: F32
    """Shape ``(rows, vocabulary)``."""
    f16: F32

    @property
    def kl(self) -> F64:
        """KL(f16 ‖ pair) of each row, nats, shape ``(rows,)``."""
        targets = np.zeros(len(self.cell), np.int32)
        return np.asarray(compare_rows(self.f16, self.cell, targets).kl, np.float64)

    @property
    def same_choice(self) -> npt.NDArray[np.bool_]:
        """Whether both have the same likeliest token, by row."""
        return np.asarray(self.cell.argmax(axis=1) == self.f16.argmax(axis=1))


class LiveContext:
    """A context of the pair and one of f16/f16; what is done is done to both.

    Positions go on by themselves, sequence by sequence.
    """

    def __init__(self, pair: Pair, cell: Worker, f16: Worker, vocabulary: int) -> None:
        self._pair, self._cell, self._f16, self._vocabulary = pair, cell, f16, vocabulary
        self._at: dict[int, int] = {}
        self._saved: dict[int, int] = {}

    def decode(
        self, tokens: Sequence[int], *, sequence: int = 0, one_at_a_time: bool = False
    ) -> LiveLogits:
        """Add tokens to a sequence.

        Args:
            tokens: at least one.
            one_at_a_time: by the decode path; else all of them in one batch.

        Returns:
            Logits at each of the tokens.
        """
        if not len(tokens):
            raise ValueError("there are no tokens to decode")
        words, position = [int(token) for token in tokens], self._at.get(sequence, 0)
        step: Sequence[object] = ["decode", [(sequence, position, words, len(words))]]
        if one_at_a_time:
            step = ["each", sequence, position, words]
        self._at[sequence] = position + len(words)
        return self._play([step])

    def clear(self) -> None:
        """Forget every sequence."""
        self._at.clear()
        self._play([["clear"]])

    def save_and_restore(self, *, sequence: int = 0) -> None:
        """Serialize a sequence, forget everything, and put the sequence back."""
        kept = self._at.get(sequence, 0)
        self._play([["save", sequence], ["clear"], ["restore", sequence]])
        self._at = {sequence: kept}

    def _play(self, steps: list[Sequence[object]]) -> LiveLogits:
        __tracebackhide__ = True
        try:
            cell, f16 = (
                _collected(worker, steps, self._vocabulary) for worker in (self._cell, self._f16)
            )
        except CellError as error:
            _fail(self._pair, error)
        return LiveLogits(cell, f16)


class KVCell(Pair):
    """A pair of the run (``.k``, ``.v``, ``str()``), for a test to run tokens through."""

    _session: Session

    def __new__(cls, pair: Pair, session: Session) -> KVCell:
        """The pair, bound to a run."""
        made = super().__new__(cls, pair.k, pair.v)
        made._session = session
        return made

    def logits(
        self, tokens: Sequence[int] | npt.NDArray[np.int32], *, one_at_a_time: bool = False
    ) -> LiveLogits:
        """Logits at each of the tokens, from an empty cache, of the pair and of f16/f16.

        Args:
            one_at_a_time: by the decode path; else by prefill, all in one batch.
        """
        __tracebackhide__ = True
        with self.context(len(tokens)) as live:
            return live.decode(list(tokens), one_at_a_time=one_at_a_time)

    @contextmanager
    def context(self, tokens: int | None = None) -> Iterator[LiveContext]:
        """A live context of the pair, with f16's beside it, each in a process of its own.

        Args:
            tokens: how many a sequence can hold; default: ``--kv-ctx``.
        """
        __tracebackhide__ = True
        task = self._session.task
        longest = max(tokens or task.shape.ctx, 1)
        shape = msgspec.structs.replace(
            task.shape, ctx=longest, scored=1, batch=max(task.shape.batch, longest)
        )
        with ExitStack() as stack:
            try:
                workers = []
                for pair in (Pair(*self), REFERENCE):
                    worker = stack.enter_context(Worker(task.engine))
                    task._replace(shape=shape).open_cell(worker, pair)
                    workers.append(worker)
            except CellError as error:
                _fail(self, error)
            yield LiveContext(self, workers[0], workers[1], task.vocabulary)

    def tokens(self, count: int) -> npt.NDArray[np.int32]:
        """The first tokens of the run's first chunk: real text to run through a context."""
        return np.array(self._session.task.chunks[0][:count], np.int32)


def _collected(worker: Worker, steps: list[Sequence[object]], vocabulary: int) -> F32:
    found = [block.logits.copy() for block in worker.run_script(steps, vocabulary)]
    return np.concatenate(found) if found else np.empty((0, vocabulary), np.float32)


def _fail(pair: Pair, error: CellError) -> NoReturn:
    __tracebackhide__ = True
    log = f"\n\nThe end of the library's log:\n{error.log}" if error.log else ""
    pytest.fail(f"{pair}: {error.verdict}. {error}{log}", pytrace=False)
