"""The reference's logits, computed where they are not stored yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from pytest_kvquant.errors import CellError, CellWithoutReference
from pytest_kvquant.inputs.reference_store import Reference
from pytest_kvquant.inputs.store_folder import StoreError
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.numerics.kernels import TokenFigures, compare_rows
from pytest_kvquant.quality.task import Task


class ReferenceSource:
    """Hands out the reference's logits, computing what is not stored yet.

    Args:
        task: with the engine of the build that computes it.
        on_chunks: told how many chunks of the reference have been computed, of how many that were
            missing; 0 before the first.
        pair: whose logits they are.
    """

    def __init__(
        self,
        task: Task,
        reference: Reference,
        on_chunks: Callable[[int, int], None],
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
        reading = self._task.workers.timesheet.part("reference")
        with _as_cell_error(self._pair), reading, self._reference.exclusively():
            if absent := [groups[number] for number in self._reference.missing(groups)]:
                self._reference.evict(absent)
                self._compute(absent)
        places = [(group, within) for group in groups for within in range(len(group))]
        self._place |= dict(zip(range(start, stop), places, strict=True))

    def complete(self, step: int) -> bool:
        """Whether there are files for the chunks up to a look of the rules already.

        Args:
            step: number of the look.
        """
        start, stop = list(self._task.steps())[step]
        return self._reference.holds(self._task.groups(start, stop))

    def rows(self, chunk: int, first: int, count: int) -> npt.NDArray[np.float32]:
        """Scored logits of a chunk that was ensured, shape ``(count, vocabulary)``.

        Raises:
            CellError: they are gone.
        """
        group, within = self._place[chunk]
        with _as_cell_error(self._pair):
            return self._reference.rows(group, within, first, count)

    def compare(
        self, chunk: int, first: int, logits: npt.NDArray[np.float32], targets: I32
    ) -> TokenFigures:
        """Scored logits of a cell beside those of a chunk that was ensured.

        Raises:
            CellError: they are gone.
        """
        return compare_rows(self.rows(chunk, first, len(logits)), logits, targets)

    def _compute(self, groups: list[I32]) -> None:
        task, missing = self._task, sum(map(len, groups))
        workers = task.workers
        self._on_chunks(0, missing)
        with workers.timesheet.scope("reference"), workers.shared() as worker:
            task.open_cell(worker, self._pair)
            done = 0
            for group in groups:
                with self._reference.writing(group) as writer:
                    for rows in worker.score(group, task.shape, task.vocabulary):
                        with workers.timesheet.part("writing"):
                            writer.append(rows.logits)
                done += len(group)
                self._on_chunks(done, missing)
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
