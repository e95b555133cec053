"""Each cache type's reference quantizer on seeded rows: measured once a run, whatever the pairs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from pytest_kvquant.errors import CellError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics import quantizer, quantizer_inputs, quantizer_rules
from pytest_kvquant.numerics.arrays import F32
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
        pairs: of the run. All their types are asked for at once, and judged while cells decode.
    """

    def __init__(
        self, task: Task, blocks: dict[str, tuple[int, int]], pairs: Iterable[Pair]
    ) -> None:
        self._task, self._blocks = task, blocks
        self._names = dict.fromkeys(name for pair in pairs for name in pair)
        self._found: dict[str, Future[QuantizerRecord]] = {}
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="quantizers")

    def of(self, pair: Pair) -> tuple[QuantizerRecord, ...]:
        """What is known of the types of a pair, each once."""
        for name in (*pair, *self._names):
            if name not in self._found:
                self._found[name] = self._beside.submit(self._asked(name))
        return tuple(self._found[name].result() for name in dict.fromkeys(pair))

    def _asked(self, name: str) -> Callable[[], QuantizerRecord]:
        """What a type makes of seeded rows, to be judged by whoever calls it."""
        try:
            return self._measure(name)
        except CellError as error:
            return functools.partial(QuantizerRecord, type=name, problem=str(error))

    def _measure(self, name: str) -> Callable[[], QuantizerRecord]:
        block, size = self._blocks[name]
        if block == 1:
            block, size = PLAIN_BLOCK, PLAIN_BLOCK * size
        sent = quantizer_inputs.make(block)
        back, equal = dict[str, F32](), 1.0
        workers = self._task.workers
        with workers.timesheet.scope("quantizers"), workers.shared() as worker:
            worker.library(self._task.engine.directory)
            for key, rows in sent.items():
                made = worker.quantizer(name, rows)
                back[key], equal = made.back, min(equal, made.equal)
        return functools.partial(_judged, name, block, size, sent, back, equal)


def _judged(
    name: str,
    block: int,
    size: int,
    sent: dict[str, F32],
    back: dict[str, F32],
    equal: float,
) -> QuantizerRecord:
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
