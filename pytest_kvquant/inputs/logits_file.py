"""Logits that ``llama-perplexity --save-all-logits`` (or ``--kl-divergence-base``) wrote.

The file: ``_logits_``, then as int32 the context, the vocabulary, the number of chunks; the tokens
of all chunks; then of each chunk the rows of its second half. A row holds two float32, the step and
the smallest log probability, and a uint16 per token of the vocabulary: how many steps above it the
token lies. What is more than 16 nats under the largest logit of a row was clamped there.
Source of the layout: ``tools/perplexity/perplexity.cpp`` of llama.cpp.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pytest_kvquant.errors import RunRefused
from pytest_kvquant.numerics.arrays import F32, I32

MAGIC = b"_logits_"
HEAD = len(MAGIC) + 3 * 4
EXTRA = 4
"""uint16 before the row's tokens: two float32."""


class LogitsFileError(RunRefused):
    """A file of logits that is none, is cut off, or is of other tokens."""


class LogitsFile:
    """An opened file; rows are read when they are asked for.

    Raises:
        LogitsFileError: it cannot be read, is not such a file, or is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(HEAD)
        except OSError as error:
            raise LogitsFileError(f"{path} cannot be read: {error.strerror}.") from None
        if len(head) < HEAD or not head.startswith(MAGIC):
            raise LogitsFileError(
                f"{path} is not a file of llama-perplexity --save-all-logits: it does not begin "
                f"with {MAGIC.decode()}."
            )
        self.ctx, self.vocabulary, self.chunks = map(int, np.frombuffer(head[8:], np.int32))
        if min(self.ctx, self.vocabulary, self.chunks) < 1:
            raise LogitsFileError(f"{path} names {self.chunks} chunks of {self.ctx} tokens.")
        self.scored = self.ctx - 1 - self.ctx // 2
        """Rows of each chunk."""
        self._width = 2 * ((self.vocabulary + 1) // 2) + EXTRA
        begin = HEAD + 4 * self.chunks * self.ctx
        whole = begin + 2 * self.chunks * self.scored * self._width
        if size < whole:
            raise LogitsFileError(
                f"{path} is cut off: {size:,} of {whole:,} bytes. llama-perplexity was stopped "
                "before it had written all chunks; run it again."
            )
        self.tokens: I32 = np.memmap(
            path, np.int32, mode="r", offset=HEAD, shape=(self.chunks, self.ctx)
        )
        """Shape ``(chunks, ctx)``."""
        self._rows = np.memmap(
            path, np.uint16, mode="r", offset=begin,
            shape=(self.chunks, self.scored, self._width),
        )  # fmt: skip

    def find(self, tokens: I32) -> int | None:
        """The number of the chunk with exactly these tokens, if the file has it.

        The first of them does not count: where a model wants BOS, llama-perplexity puts it there
        when it evaluates the chunk, and not into the file.
        """
        if len(tokens) != self.ctx:
            return None
        found = np.flatnonzero((self.tokens[:, 1:] == tokens[1:]).all(axis=1))
        return int(found[0]) if found.size else None

    def rows(self, chunk: int, first: int, count: int) -> F32:
        """Log probabilities of scored tokens of a chunk, shape ``(count, vocabulary)``, in nats."""
        packed = np.ascontiguousarray(self._rows[chunk, first : first + count])
        step, lowest = packed[:, :EXTRA].copy().view(np.float32).T
        steps = packed[:, EXTRA : EXTRA + self.vocabulary].astype(np.float32)
        return np.asarray(steps * step[:, None] + lowest[:, None], np.float32)

    def step(self) -> float:
        """The largest step between two neighbouring values of the first chunk, nats."""
        return float(self._rows[0, :, :2].copy().view(np.float32).max())


def write(path: Path, tokens: I32, logits: F32) -> None:
    """Write such a file, rounding as llama-perplexity does: for tests and for exchange.

    Args:
        tokens: shape ``(chunks, ctx)``.
        logits: of the second half of each chunk, shape ``(chunks, scored, vocabulary)``.
    """
    chunks, ctx = tokens.shape
    vocabulary = logits.shape[-1]
    high = logits.max(axis=-1, keepdims=True)
    low = np.maximum(logits.min(axis=-1, keepdims=True), high - 16)
    total = np.log(np.exp((logits - high).astype(np.float64)).sum(axis=-1, keepdims=True))
    step = ((high - low) / np.float32(65535)).astype(np.float32)
    safe = np.where(step > 0, step, 1)
    steps = np.where(logits > low, np.rint((logits - low) / safe), 0)
    width = 2 * ((vocabulary + 1) // 2) + EXTRA
    packed = np.zeros((chunks, logits.shape[1], width), np.uint16)
    lowest = (low - high - total).astype(np.float32)
    packed[..., :EXTRA] = np.concatenate([step, lowest], axis=-1).view(np.uint16)
    packed[..., EXTRA : EXTRA + vocabulary] = steps
    with path.open("wb") as file:
        file.write(MAGIC)
        file.write(np.array([ctx, vocabulary, chunks], np.int32).tobytes())
        file.write(np.ascontiguousarray(tokens, np.int32).tobytes())
        file.write(packed.tobytes())
