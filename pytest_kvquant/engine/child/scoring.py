"""Child side: chunks of tokens through the prefill path, scored logits into the ring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.batching import OUTPUT_BYTES
from pytest_kvquant.engine.child.context import Context
from pytest_kvquant.numerics.arrays import F32, I32


class Scored(NamedTuple):
    """A block of logits: rows ``first`` … of the scored tokens of chunk ``chunk``."""

    chunk: int
    first: int
    logits: F32


def score_group(context: Context, chunks: I32, first_chunk: int, scored: int) -> Iterator[Scored]:
    """Evaluate a group of chunks together, each from an empty cache.

    Args:
        chunks: tokens, shape ``(sequences, ctx)``; the group shares one batch.
        first_chunk: number of the first of them.
        scored: the logits at the last ``scored`` positions that have a successor are wanted.

    Yields:
        The scored logits; each block is valid until the next is asked for. Those that complete a
        chunk come after one more decode has proved that the device still computes.
    """
    context.clear()
    sequences, ctx = chunks.shape
    first_row = ctx - 1 - scored
    for start, stop in _pieces(context, sequences, ctx, scored):
        span = np.arange(start, stop, dtype=np.int32)
        outputs = (span >= first_row) & (span < ctx - 1)
        logits = context.decode(
            chunks[:, start:stop].ravel(),
            np.tile(span, sequences),
            np.repeat(np.arange(sequences, dtype=np.int32), len(span)),
            np.tile(outputs, sequences),
        )
        if stop == ctx:
            context.prove_alive()
        rows = int(outputs.sum())
        for sequence in range(sequences if rows else 0):
            block = logits[sequence * rows : (sequence + 1) * rows]
            yield Scored(first_chunk + sequence, max(0, start - first_row), block)


def _pieces(context: Context, sequences: int, ctx: int, scored: int) -> Iterator[tuple[int, int]]:
    """Cut a chunk into batches; smaller ones where every token gives a row of logits."""
    if sequences > 1:
        yield 0, ctx
        return
    by_output = OUTPUT_BYTES // (context.model.vocabulary * 4)
    with_output = max(context.ubatch, by_output // context.ubatch * context.ubatch)
    start = 0
    while start < ctx:
        size = context.batch
        if start + size > ctx - 1 - scored:
            size = min(size, with_output)
        yield start, min(start + size, ctx)
        start += size
