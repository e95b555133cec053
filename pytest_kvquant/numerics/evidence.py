"""Per-token figures of one cell, chunk by chunk, and the per-chunk figures the gates judge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import F64
from pytest_kvquant.numerics.kernels import FIGURE_TYPES, TokenFigures


class ChunkFigures(NamedTuple):
    """One figure per complete chunk, each of shape ``(chunks,)``: what the gates judge."""

    kl: F64
    """Mean KL, nats."""
    ln_ppl: F64
    """Mean of nll(cell) − nll(reference), nats."""
    tail: F64
    """Share of tokens with a KL over the tail bound."""
    flips: F64
    """Share of decisive flips: another argmax where the reference's margin is not a tie."""
    nll_cell: F64
    nll_reference: F64
    top1: F64
    """Share of tokens with the same argmax."""


class Evidence:
    """Figures of all scored tokens, filled block by block in chunk order.

    ``columns`` has the fields of :class:`TokenFigures`, each of shape ``(chunks, scored)``; only
    the first ``complete`` chunks are meant.

    Args:
        chunks: most chunks that will come.
        scored: scored tokens per chunk.
        tail_over: nats above which a token counts for the tail.
        tie_band: logits; a flip within it is a tie broken differently, not a flip.
    """

    def __init__(self, chunks: int, scored: int, *, tail_over: float, tie_band: float) -> None:
        shape = (chunks, scored)
        self.columns = TokenFigures._make(np.zeros(shape, kind) for kind in FIGURE_TYPES)
        self._per_chunk = np.zeros((len(ChunkFigures._fields), chunks))
        self.scored, self.tail_over, self.tie_band = scored, tail_over, tie_band
        self.complete = 0
        """Chunks of which every scored token is in."""
        self.finite = True
        """Whether every logit so far was a number."""

    def put(self, chunk: int, first: int, figures: TokenFigures) -> None:
        """Store the figures of rows ``first`` … of a chunk; blocks come in order."""
        last = first + len(figures.kl)
        columns: Iterable[npt.NDArray[np.generic]] = self.columns
        fresh: Iterable[npt.NDArray[np.generic]] = figures
        for column, values in zip(columns, fresh, strict=True):
            column[chunk, first:last] = values
        self.finite = self.finite and bool(np.isfinite(figures.kl).all())
        if last == self.scored:
            self._per_chunk[:, chunk] = self._summarize(chunk)
            self.complete += 1

    def tokens(self) -> TokenFigures:
        """Columns of the complete chunks, each of shape ``(complete, scored)``."""
        return TokenFigures._make(column[: self.complete] for column in self.columns)

    def per_chunk(self) -> ChunkFigures:
        """Figures of the complete chunks."""
        return ChunkFigures(*self._per_chunk[:, : self.complete])

    def first_non_finite(self) -> tuple[int, int] | None:
        """Chunk and row of the first token with a NaN or an infinity among its logits."""
        bad = np.argwhere(~np.isfinite(self.columns.kl))
        return (int(bad[0][0]), int(bad[0][1])) if len(bad) else None

    def digests(self) -> tuple[str, ...]:
        """A hash of the logits of each complete chunk; equal logits have equal hashes."""
        rows = self.tokens().digest
        weights = 2 * np.arange(self.scored, dtype=np.uint64) + np.uint64(1)
        return tuple(f"{int(one):016x}" for one in (rows * weights).sum(axis=1, dtype=np.uint64))

    def _summarize(self, chunk: int) -> ChunkFigures:
        seen = TokenFigures._make(column[chunk] for column in self.columns)
        same = seen.top_cell == seen.top_reference
        return ChunkFigures(
            kl=np.maximum(seen.kl, 0.0).mean(),
            ln_ppl=(seen.nll_cell - seen.nll_reference).mean(),
            tail=(seen.kl > self.tail_over).mean(),
            flips=(~same & (seen.margin > self.tie_band)).mean(),
            nll_cell=seen.nll_cell.mean(),
            nll_reference=seen.nll_reference.mean(),
            top1=same.mean(),
        )
