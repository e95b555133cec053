"""How a sequence begins: known to both sides, and used wherever tokens go to position 0."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_kvquant.numerics.arrays import I32


def from_start(tokens: npt.ArrayLike, bos: int | None) -> I32:
    """Tokens as the model is to meet them at the start of a sequence; a copy.

    A model that wants BOS gets it in the place of the first token, as ``llama-perplexity`` does it
    with its chunks: positions stay what they are. Gemma without it has a perplexity 50 times as
    high.

    Args:
        tokens: shape ``(n,)``, or ``(sequences, n)``: each row a sequence.
        bos: ``None``: the model wants none.
    """
    begun = np.array(tokens, np.int32)
    if bos is not None and begun.shape[-1]:
        begun[..., 0] = bos
    return begun
