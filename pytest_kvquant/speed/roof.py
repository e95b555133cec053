"""How far a speed is from what the machine permits: bytes over bandwidth, operations over rate.

Information, no floor: how near to the roof a healthy build comes depends on model and device. It
tells a machine that is slow from a build that is, and a small model's overhead from both.
"""

from __future__ import annotations

from pytest_kvquant.config.speed_tests import named
from pytest_kvquant.engine.parent.timed import TimedWorker
from pytest_kvquant.inputs import geometry
from pytest_kvquant.inputs.caches import CachedLayer
from pytest_kvquant.inputs.model import Model, simple_caches
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.roof import (
    MachineRates,
    Roof,
    TokenWork,
    decode_roof,
    prefill_roof,
)

CPU_SIZE = (1 << 20, 256 << 20)
"""Bytes that are read on a CPU at least and at most: as many as the model and its cache have, since
what fits into the processor's caches is read from there."""

DEVICE_SIZE = 1 << 30
"""Bytes that are read on another device: enough for the start of a kernel not to count."""


class Roofs:
    """What a machine permits a model; measured once for each size of what a token reads.

    Args:
        types: of the library, see :data:`.geometry.Types`.
        device: ggml's name of the device that computes; ``None``: the CPU.
    """

    def __init__(
        self, model: Model, types: geometry.Types, device: str | None, *, batch: int, ubatch: int
    ) -> None:
        self._model, self._types, self._device = model, types, device
        self._batch, self._ubatch = batch, ubatch
        self._rates: dict[int, MachineRates] = {}
        self._last: MachineRates | None = None

    def measure(self, worker: TimedWorker, context: int, threads: int) -> None:
        """Measure the machine, if it was not, for caches of ``context`` tokens.

        Raises:
            CellError: the worker dies. Where the device lacks a kernel, there is no roof.
        """
        weights = self._model.weights
        if weights is None:
            return
        size = DEVICE_SIZE
        if self._device is None:
            least, most = CPU_SIZE
            read = weights.read + self._cache(REFERENCE, context)
            size = min(most, max(least, 1 << (read - 1).bit_length()))
        if size not in self._rates:
            found = worker.rates(self._device, size, threads)
            if found is None:
                return
            self._rates[size] = found
        self._last = self._rates[size]

    def of(self, pair: Pair, kind: str, tokens: int, depth: int) -> Roof | None:
        """The most tok/s of a test; ``None``: not known.

        Args:
            tokens: of the test, behind ``depth`` in the cache.
        """
        weights = self._model.weights
        if weights is None or self._last is None or self._chooses_rows:
            return None
        at_once = named(kind).at_once or min(self._ubatch, self._batch, tokens)
        middle = depth + tokens // 2
        work = TokenWork(
            weights.read, self._cache(pair, middle), self._operations(weights.multiplied, middle)
        )
        if at_once == 1:
            return decode_roof(work, self._last)
        return prefill_roof(work, self._last, at_once)

    @property
    def _chooses_rows(self) -> bool:
        """Whether attention reads some rows only."""
        return any(shape.kind == "indexer" for shape in self._model.caches)

    def _cache(self, pair: Pair, tokens: int) -> int:
        return geometry.need(self._model, pair, self._types, ubatch=0).least(tokens)

    def _operations(self, multiplied: int, tokens: int) -> float:
        """Of a token: 2 for each element of a matrix, and for each of the rows that it attends to.

        A row costs 2 for each element of K and of V, for every query head.
        """
        shapes = self._model.caches or simple_caches(self._model)
        total = 2.0 * multiplied
        for shape in shapes:
            rows = min(tokens, self._model.window) if shape.kind == "window" else tokens
            total += sum(2.0 * rows * self._width(layer) for layer in shape.layers)
        return total

    def _width(self, layer: CachedLayer) -> int:
        """Elements of K and V that all query heads of a layer multiply with in a row."""
        values = layer.dim_v or layer.dim_k  # of one cache for both, V is a part of K
        return self._model.n_head * (layer.dim_k + values)
