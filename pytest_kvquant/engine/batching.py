"""How many chunks share a batch: known to both sides."""

from __future__ import annotations

OUTPUT_BYTES = 256 << 20
"""Most bytes of logits that one ``llama_decode`` should produce."""


def sequences_per_batch(*, ctx: int, batch: int, scored: int, vocabulary: int) -> int:
    """How many chunks go into one batch: as many as fit, as ``llama-perplexity`` does it."""
    by_output = OUTPUT_BYTES // (scored * vocabulary * 4)
    return max(1, min(batch // ctx, by_output))
