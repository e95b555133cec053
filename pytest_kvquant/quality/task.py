"""What every cell of a run is measured on."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from pytest_kvquant.engine.parent.engine import BatchShape, Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.parent.workers import Workers
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.arrays import I32
from pytest_kvquant.numerics.rules import Rules


class Task(NamedTuple):
    """What every cell of a run is measured on."""

    engine: Engine
    model: str
    gpu_layers: int
    vocabulary: int
    shape: BatchShape
    chunks: I32
    """Tokens in the order drawn, shape ``(most chunks, ctx)``."""
    rules: Rules
    crew: Workers | None = None
    """Who measures; where they are of another engine, or not given, everything is done fresh."""

    @property
    def workers(self) -> Workers:
        """Those that hold this engine's library and this model."""
        if self.crew is not None and self.crew.holds(self.engine, self.model, self.gpu_layers):
            return self.crew
        return Workers(self.engine, self.model, self.gpu_layers, "fresh")

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
