"""Messages that judge kernels on live graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_kvquant.engine.messages.base import Said
from pytest_kvquant.engine.messages.cell import Step


@dataclass(frozen=True, kw_only=True)
class WatchShape:
    """How a context is made, but for its size."""

    type_k: str
    type_v: str
    sequences: int
    unified: bool
    batch: int
    ubatch: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class WatchOrder:
    """What is watched."""

    layers: Sequence[int]
    facts: Mapping[str, object]
    """See :class:`pytest_kvquant.engine.child.facts.Facts`."""
    seed: int
    flash: bool
    """Whether attention is one operation."""
    folder: str | None
    """Where reproducers go."""
    build: str
    """In words, for the reproducers."""
    context: WatchShape


@dataclass(frozen=True, kw_only=True)
class Ascend(Said):
    """Sweep through a context of the payload's tokens, with a ladder of batch sizes."""

    NAME: ClassVar = "ascend"
    watch: WatchOrder
    cells: int
    ascends: Sequence[tuple[int, Sequence[int]]]
    """Depths, and the batch sizes there."""
    store: str | None
    """Where f16 leaves its logits, and other pairs find them."""
    is_reference: bool


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One batch size at one depth; see :class:`pytest_kvquant.results.kernels.RungRecord`."""

    depth: int
    tokens: int
    own: float | None
    """Mean KL of its logits against those of the largest size, nats; ``None`` for the largest."""
    reference: float | None
    """Mean KL against f16 in the same size; ``None`` for f16 itself."""
    cost: float | None = None
    """Mean KL of the largest size against f16's, over the tokens that this size has, too."""
    fused: float | None
    """Mean KL against the same batch without the oracle; 0 for equal bits."""


@dataclass(frozen=True, kw_only=True)
class CornerSeen:
    """Nodes of one corner; see :class:`pytest_kvquant.results.kernels.CornerRecord`."""

    operation: str
    k_type: str
    v_type: str
    head_k: int
    head_v: int
    group: int
    tokens: int
    length: int
    mask: str
    backend: str
    nodes: int
    failed: int
    ratio: float
    error: float
    worst: float


@dataclass(frozen=True, kw_only=True)
class NodeWrong:
    """A wrong node; see :class:`pytest_kvquant.results.kernels.NodeFailure`."""

    operation: str
    layer: int
    node: str
    tokens: int
    text: str
    ratio: float
    reproducer: str | None


@dataclass(frozen=True, kw_only=True)
class Seen(Said):
    """What an oracle saw."""

    corners: Sequence[CornerSeen]
    failures: Sequence[NodeWrong]
    unknown: Mapping[str, int]
    """Nodes that were not understood, by operation."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Ascended(Seen):
    """The answer."""

    NAME: ClassVar = "ascended"
    rungs: Sequence[Rung]
    takes_back: bool
    """Whether tokens can be removed from the end."""


@dataclass(frozen=True, kw_only=True)
class PlayScenario(Said):
    """Play a scenario of cache operations."""

    NAME: ClassVar = "scenario"
    watch: WatchOrder
    cells: int
    steps: Sequence[Step]
    name: str
    equal: Sequence[tuple[str, str]]
    """Labels whose logits should be the same."""
    store: str | None
    is_reference: bool


@dataclass(frozen=True, kw_only=True)
class StepBegun(Said):
    """A step of the scenario is played now."""

    NAME: ClassVar = "step"
    number: int


@dataclass(frozen=True, kw_only=True)
class ScenarioPlayed(Seen):
    """The answer."""

    NAME: ClassVar = "scenario_played"
    unsupported: str
    """Why the library cannot do that, in words; empty: it can."""
    failed: str
    """What it began and did not do, in words; empty: nothing."""
    reference: Mapping[str, float]
    """Mean KL of each label against f16's, nats."""
    own: Sequence[float]
    """Mean KL between labels that should be the same, nats."""


@dataclass(frozen=True, kw_only=True)
class Reproduce(Said):
    """Compute the node of a file again."""

    NAME: ClassVar = "reproduce"
    path: str
    device: str | None


@dataclass(frozen=True, kw_only=True)
class NodeOfFile:
    """What a file says of its node."""

    operation: str
    name: str
    layer: int
    text: str
    build: str


@dataclass(frozen=True, kw_only=True)
class NodeJudged:
    """One judgement of a node."""

    ratio: float
    """Error over its limit."""
    error: float
    """NMSE against exact arithmetic."""
    text: str
    """What is wrong; empty: nothing."""


@dataclass(frozen=True, kw_only=True)
class Reproduced(Said):
    """The answer."""

    NAME: ClassVar = "reproduced"
    about: NodeOfFile
    device: str
    change: float
    """NMSE of the output against the file's."""
    findings: Sequence[NodeJudged]
    understood: bool
