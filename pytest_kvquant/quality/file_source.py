"""The reference's logits out of a file of llama-perplexity, instead of out of the store."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_kvquant.errors import CellWithoutReference
from pytest_kvquant.inputs.logits_file import LogitsFile
from pytest_kvquant.inputs.reference_store import Usage
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.numerics.kernels import TokenFigures, compare_rows
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

    def compare(
        self, chunk: int, first: int, logits: npt.NDArray[np.float32], targets: I32
    ) -> TokenFigures:
        """As llama-perplexity compares: what was clamped is left out, and nothing is normalized.

        A vocabulary of 50,000 tokens clamped at 16 nats carries a mass of 0.005 that f16 never
        gave them; counted, it drowns the KL of a fine pair.
        """
        rows = self.rows(chunk, first, len(logits))
        found = compare_rows(rows, logits, targets)
        kl = np.array(
            [_divergence(row, other) for row, other in zip(rows, logits, strict=True)], np.float64
        )
        of_target = rows[np.arange(len(rows)), targets].astype(np.float64)
        return found._replace(
            kl=np.maximum(kl, 0.0),
            nll_reference=-of_target,
            delta_p=np.exp(-found.nll_cell) - np.exp(of_target),
        )


LEAST = -16.0
"""Log probabilities at or under it are not counted; see ``log_softmax`` of perplexity.cpp."""


def _divergence(row: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> float:
    """KL of one token, nats.

    Args:
        row: log probabilities of the file, shape ``(vocabulary,)``.
    """
    most = float(logits.max())
    total = most + float(np.log(np.exp(logits.astype(np.float64) - most).sum()))
    kept = row > LEAST
    log_p = row[kept].astype(np.float64)
    return float((np.exp(log_p) * (log_p - logits[kept] + total)).sum())
