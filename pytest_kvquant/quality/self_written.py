"""Text that f16 itself writes: what a model meets that reads its own output.

Half of the chunks are the likeliest continuation (temperature 0), half are drawn at 0.8.
"""

from __future__ import annotations

import numpy as np

from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.numerics.arrays import I32

PROMPT = 16
"""Tokens of a prompt."""
TEMPERATURES = (0.0, 0.8)


def cut_prompts(tokens: I32, count: int) -> I32:
    """Short prompts from a text, evenly spaced, shape ``(count, PROMPT)``."""
    starts = np.linspace(0, max(0, len(tokens) - PROMPT), count).astype(int)
    return np.stack([tokens[start : start + PROMPT] for start in starts]).astype(np.int32)


def write(
    worker: Worker, prompts: I32, shape: BatchShape, *, vocabulary: int, bos: int | None, seed: int
) -> I32:
    """Continue each prompt to a whole chunk, in the opened context of f16.

    Args:
        prompts: shape ``(chunks, PROMPT)``.

    Returns:
        Tokens, shape ``(chunks, ctx)``.

    Raises:
        CellError: the worker dies.
    """
    begun = from_start(prompts, bos)
    half = -(-len(begun) // 2)
    written: list[list[int]] = []
    for temperature, part in zip(TEMPERATURES, (begun[:half], begun[half:]), strict=True):
        for start in range(0, len(part), shape.sequences):
            group = part[start : start + shape.sequences].tolist()
            step = ["write", group, shape.ctx - PROMPT, temperature, seed + len(written)]
            for _ in worker.run_script([step], vocabulary):
                pass
            written += worker.chosen
    return np.concatenate([begun, np.array(written, np.int32)], axis=1)
