"""What a worker hands over in bulk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class LogitsBlock(NamedTuple):
    """A block of scored logits in shared memory; valid until the next one is asked for."""

    chunk: int
    first: int
    logits: npt.NDArray[np.float32]


class StoredSide(NamedTuple):
    """How a cell stores one side of one layer of its cache."""

    layer: int
    side: str
    """``K`` or ``V``."""
    type: str
    """ggml name of the cache's own tensor."""
    rotation: int
    """Size of the Hadamard matrix by which the build turns rows before; 1: none."""
    elements: int
    """Of a stored row."""
    on_cpu: bool = True
    """Whether the processor multiplies these rows with queries, which it rounds first; of K."""


class QuantizedRows(NamedTuple):
    """What came back of rows sent through a type's reference quantizer."""

    back: npt.NDArray[np.float32]
    """Shape as sent."""
    block: int
    bytes: int
    """Of a block."""
    equal: float
    """Share of bytes that ``ggml_quantize_chunk`` writes alike."""
