"""Each cache type's reference quantizer on seeded rows: measured once a run, whatever the pairs."""

from __future__ import annotations

from pytest_kvquant.errors import CellError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics import quantizer, quantizer_inputs, quantizer_rules
from pytest_kvquant.numerics.known_quantizers import known
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.quantizer import QuantizerRecord

PLAIN_BLOCK = 32
"""Values looked at together of types that have no blocks."""


class Quantizers:
    """Asks the measured build how its types round.

    Args:
        task: of the measured build.
        blocks: values that share a scale, and bytes of them, by type.
    """

    def __init__(self, task: Task, blocks: dict[str, tuple[int, int]]) -> None:
        self._task, self._blocks = task, blocks
        self._found: dict[str, QuantizerRecord] = {}

    def of(self, pair: Pair) -> tuple[QuantizerRecord, ...]:
        """What is known of the types of a pair, each once."""
        return tuple(self._of_type(name) for name in dict.fromkeys(pair))

    def _of_type(self, name: str) -> QuantizerRecord:
        if name not in self._found:
            try:
                self._found[name] = self._measure(name)
            except CellError as error:
                self._found[name] = QuantizerRecord(type=name, problem=str(error))
        return self._found[name]

    def _measure(self, name: str) -> QuantizerRecord:
        block, size = self._blocks[name]
        if block == 1:
            block, size = PLAIN_BLOCK, PLAIN_BLOCK * size
        sent = quantizer_inputs.make(block)
        back, equal = {}, 1.0
        workers = self._task.workers
        with workers.timesheet.scope("quantizers"), workers.shared() as worker:
            worker.library(self._task.engine.directory)
            for key, rows in sent.items():
                made = worker.quantizer(name, rows)
                back[key], equal = made.back, min(equal, made.equal)
        figures = quantizer.measure(name, block, size, sent, back)
        accepted = known(figures)
        return QuantizerRecord(
            type=name,
            figures=figures,
            findings=quantizer_rules.judge(figures, accepted),
            known=accepted is not None,
            gained=quantizer_rules.improvement(figures, accepted),
            by_rows=equal,
        )
