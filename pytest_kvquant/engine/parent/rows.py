"""What a worker hands over in bulk."""

from __future__ import annotations

from collections.abc import Iterable
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


UNTILED = 32
"""Query tokens for which llama.cpp's processor kernel takes no tiles, even of f16; it does from 64
on."""


def emulated_ubatch(sides: Iterable[StoredSide], ubatch: int) -> int:
    """Tokens of a physical batch in which a cell with these rows is emulated.

    Where values are f16 and keys are not, the processor's kernel adds values up in f16. Of f16 with
    f16 it does so only without tiles, and on a model whose attention is nearly even that sum is a
    third of all that 8-bit keys cost: the emulation has to add up in the same way.
    """
    keys = {one.type for one in sides if one.side == "K" and one.on_cpu}
    values = {one.type for one in sides if one.side == "V"}
    halves = values == {"f16"} and bool(keys) and "f16" not in keys
    return min(ubatch, UNTILED) if halves else ubatch


class QuantizedRows(NamedTuple):
    """What came back of rows sent through a type's reference quantizer."""

    back: npt.NDArray[np.float32]
    """Shape as sent."""
    block: int
    bytes: int
    """Of a block."""
    equal: float
    """Share of bytes that ``ggml_quantize_chunk`` writes alike."""
