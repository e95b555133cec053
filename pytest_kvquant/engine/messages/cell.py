"""Messages about one cell: its context, its logits, its cache, what it leaves in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from pytest_kvquant.engine.census_record import Census
from pytest_kvquant.engine.messages.base import Said
from pytest_kvquant.engine.messages.context import ContextShape

Span: TypeAlias = tuple[int, int, Sequence[int], int]
"""Tokens that one batch decodes of a sequence: its number, the position of the first, the tokens,
and how many of the last have their logits wanted."""

Step: TypeAlias = Sequence[object]
"""An operation and its arguments; see :mod:`pytest_kvquant.engine.child.script`."""


@dataclass(frozen=True, kw_only=True)
class OpenContext(ContextShape):
    """Make the context of the cell, in the place of an earlier one."""

    NAME: ClassVar = "open"


@dataclass(frozen=True, kw_only=True)
class Opened(Said):
    """What the library made of the shape."""

    NAME: ClassVar = "opened"
    batch: int
    ubatch: int


@dataclass(frozen=True, kw_only=True)
class ShareRing(Said):
    """Map the shared memory whose descriptor follows."""

    NAME: ClassVar = "ring"
    slots: int
    rows: int
    vocabulary: int


@dataclass(frozen=True, kw_only=True)
class Score(Said):
    """Prefill the payload's chunks, int32, and hand their scored logits over."""

    NAME: ClassVar = "score"
    ctx: int
    scored: int
    sequences: int
    """Chunks per batch."""
    first: int
    """Number of the first chunk."""


@dataclass(frozen=True, kw_only=True)
class RowsReady(Said):
    """A slot of the shared memory is full."""

    NAME: ClassVar = "rows"
    slot: int
    chunk: int
    """Of a scoring its number, of a script that of the step."""
    first: int
    """Number of the first row within it."""
    rows: int


@dataclass(frozen=True, kw_only=True)
class FreeSlot(Said):
    """A slot was looked at."""

    NAME: ClassVar = "free"
    slot: int


@dataclass(frozen=True, kw_only=True)
class Stop(Said):
    """No further chunk is wanted."""

    NAME: ClassVar = "stop"


@dataclass(frozen=True, kw_only=True)
class ScoringDone(Said):
    """All chunks, or those until it was stopped."""

    NAME: ClassVar = "scored"
    chunks: int
    decode_ns: int
    """Inside ``llama_decode``."""


@dataclass(frozen=True, kw_only=True)
class PlayScript(Said):
    """Play cache operations, and hand the logits over that they ask for."""

    NAME: ClassVar = "script"
    steps: Sequence[Step]


@dataclass(frozen=True, kw_only=True)
class ScriptDone(Said):
    """The script was played."""

    NAME: ClassVar = "script_done"
    chosen: Sequence[Sequence[int]]
    """Tokens that each greedy step chose."""
    decode_ns: int


@dataclass(frozen=True, kw_only=True)
class TakeCensus(Said):
    """Read what the cache of the open cell holds."""

    NAME: ClassVar = "census"


@dataclass(frozen=True, kw_only=True)
class CensusTaken(Said):
    """The answer."""

    NAME: ClassVar = "census_taken"
    census: Census


@dataclass(frozen=True, kw_only=True)
class ListOperations(Said):
    """Say which operations of a small context run where."""

    NAME: ClassVar = "operations"
    type_k: str
    type_v: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class OperationsOnDevice:
    """One kind of operation on one device; see
    :class:`pytest_kvquant.results.operations.OperationRecord`."""

    op: str
    types: str
    head: int
    device: str
    nodes: int


@dataclass(frozen=True, kw_only=True)
class OperationsListed(Said):
    """The answer, by path: ``prefill`` and ``decode``."""

    NAME: ClassVar = "operations_listed"
    paths: Mapping[str, Sequence[OperationsOnDevice]]


@dataclass(frozen=True, kw_only=True)
class PutAside(Said):
    """Put the open context aside, so that another one can be opened."""

    NAME: ClassVar = "push"


@dataclass(frozen=True, kw_only=True)
class TakeBack(Said):
    """Close the open context and take the one back that was put aside."""

    NAME: ClassVar = "pop"


@dataclass(frozen=True, kw_only=True)
class ProveSteady(Said):
    """Close the cell's context and decode the payload's tokens by ``f16/f16`` in a new one."""

    NAME: ClassVar = "prove"
    scored: int
    ctx: int
    batch: int
    ubatch: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class SteadyProof(Said):
    """The answer."""

    NAME: ClassVar = "proof"
    digest: str
    """Hash of the scored logits."""
    memory: Mapping[str, int]
    """Bytes left by device, that context closed; ``host``: the negative of what the process has."""


@dataclass(frozen=True, kw_only=True)
class ReadMemory(ContextShape):
    """Decode single tokens, then make and free contexts; the open one stays."""

    NAME: ClassVar = "steady"


@dataclass(frozen=True, kw_only=True)
class MemoryRead(Said):
    """The memory in between, bytes left by device; empty where the system does not tell."""

    NAME: ClassVar = "memory_read"
    decode: Sequence[Mapping[str, int]]
    """After each block of ``tokens`` tokens."""
    contexts: Sequence[Mapping[str, int]]
    """After each context."""
    tokens: int
    idle: Sequence[Mapping[str, int]] = ()
    """While this process did nothing, for as long as a block or a context takes each; of GPUs."""


@dataclass(frozen=True, kw_only=True)
class TellStored(ContextShape):
    """How a context of these types stores its rows; the open one stays."""

    NAME: ClassVar = "stored"


StoredRow = tuple[int, str, str, int, int, bool]
"""Layer; side; type; rotation; elements of a row; whether the processor multiplies with it."""


@dataclass(frozen=True, kw_only=True)
class StoredTold(Said):
    """The answer."""

    NAME: ClassVar = "stored_told"
    places: Sequence[StoredRow]


@dataclass(frozen=True, kw_only=True)
class OpenHealthy(ContextShape):
    """Make an ``f16/f16`` context whose rows are rounded as those of a cell."""

    NAME: ClassVar = "open_healthy"
    places: Sequence[StoredRow]
    heads: Sequence[tuple[int, int]]
    """Layer, and its KV heads."""
    draw: int
    """Which of the roundings that are as likely; 0: the build's own."""


@dataclass(frozen=True, kw_only=True)
class Quantize(Said):
    """The payload's rows, float32, through a type's reference quantizer and back."""

    NAME: ClassVar = "quantizer"
    type: str
    elements: int
    """Of a row."""


@dataclass(frozen=True, kw_only=True)
class Quantized(Said):
    """The answer; the rows are its payload."""

    NAME: ClassVar = "quantized"
    block: int
    bytes: int
    """Of a block."""
    equal: float
    """Share of bytes that ``ggml_quantize_chunk`` writes alike."""
