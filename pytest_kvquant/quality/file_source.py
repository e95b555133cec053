"""The reference's logits out of a file of llama-perplexity, instead of out of the store."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_kvquant.errors import CellWithoutReference
from pytest_kvquant.inputs.logits_file import LogitsFile
from pytest_kvquant.inputs.reference_store import Usage
from pytest_kvquant.quality.source import ReferenceSource
from pytest_kvquant.quality.task import Task


class FileSource(ReferenceSource):
    """Hands out what a file holds: log probabilities, which differ from logits by a constant a row.

    Args:
        task: whose chunks are those of the file.
    """

    def __init__(self, task: Task, file: LogitsFile) -> None:
        self._task, self._file = task, file
        self._numbers: dict[int, int] = {}
        self.usage = Usage()
        self.decode_seconds = 0.0

    def ensure(self, start: int, stop: int) -> None:
        """See that the file has the chunks of a range.

        Raises:
            CellWithoutReference: it has not.
        """
        for chunk in range(start, stop):
            if chunk in self._numbers:
                continue
            number = self._file.find(self._task.chunks[chunk])
            if number is None:
                raise CellWithoutReference(f"{self._file.path} has no chunk of these tokens.")
            self._numbers[chunk] = number
            self.usage.reused += 1

    def complete(self, step: int) -> bool:
        """Nothing of it has to be computed."""
        return step >= 0

    def rows(self, chunk: int, first: int, count: int) -> npt.NDArray[np.float32]:
        """Log probabilities of a chunk that was ensured, shape ``(count, vocabulary)``."""
        return self._file.rows(self._numbers[chunk], first, count)
