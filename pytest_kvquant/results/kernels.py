"""What was found about the kernels of a pair: node by node, batch size by size, operation by
operation."""

from __future__ import annotations

import msgspec

BROKEN = ("fail", "crashed", "timeout", "out-of-memory")
"""Verdicts of a scenario that does not work."""

PLACEMENT = "placement"
"""Operation of a corner that says where an attention ran; whether that is right is no question of
arithmetic."""


class CornerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one operation under the same conditions, judged against exact arithmetic."""

    operation: str
    """``attention``, ``write``, ``rope``, ``rotation``, ``norm``, ``product``, ``softmax``,
    ``plain``, ``mask`` or ``parameters`` (positions, scale and the like against the header)."""
    k_type: str = ""
    """ggml name of K's type."""
    v_type: str = ""
    """ggml name of V's type."""
    head_k: int = 0
    """Elements of a head of K (of a row, where the operation has no heads)."""
    head_v: int = 0
    """Elements of a head of V."""
    group: int = 0
    """Query heads per KV head."""
    tokens: int = 0
    """Query tokens of a node; of a rotation its rows, rounded up to a power of two."""
    length: int = 0
    """Cells that a query sees, rounded up to a power of two."""
    mask: str = ""
    """``causal``, ``alibi`` or ``window``, with ``+sinks``, ``+softcap``, ``+streams``."""
    backend: str = ""
    """Name of the buffer that results lie in."""
    nodes: int
    """Nodes judged."""
    failed: int
    """Nodes that are wrong."""
    ratio: float
    """Largest figure over its limit; a node is wrong above 1."""
    error: float
    """Mean NMSE."""
    worst: float
    """Largest NMSE."""


class NodeFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is wrong."""

    operation: str
    """As of :class:`CornerRecord`."""
    layer: int
    """Of the model; -1 where not known."""
    node: str
    """Its name in the graph."""
    tokens: int
    """Query tokens of the node."""
    text: str
    """What is wrong, in a sentence."""
    ratio: float
    """Its figure over the limit."""
    scenario: str = ""
    """Name of the scenario in which it was seen; empty on the ascent."""
    reproducer: str | None = None
    """File with the node's inputs and outputs; see ``kvquant reproduce``."""


class RungRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The same tokens over the same cache in one batch size."""

    depth: int
    """Tokens in the cache before."""
    tokens: int
    """Tokens of the batch."""
    own: float | None = None
    """Mean KL of the logits against those of the largest size, nats."""
    reference: float | None = None
    """Mean KL against f16 in the same size, nats."""
    cost: float | None = None
    """Mean KL of the largest size against f16's, over the tokens that this size has, too, nats."""
    fused: float | None = None
    """Mean KL against the same batch without the oracle, nats; 0 for equal bits."""
    looks: int = 1
    """Texts that ``own`` and ``fused`` were taken on; they are the smallest."""
    unsteady: float | None = None
    """The smaller ``own`` of two computations of the same text on a CPU, nats, where they were not
    the same; ``None``: they were, or it was computed once."""


class ScenarioRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario of cache operations, as it was played on the pair."""

    name: str
    """In options and expectations."""
    title: str
    """For people."""
    verdict: str
    """``pass``, ``fail``, ``crashed``, ``timeout``, ``out-of-memory`` or ``unsupported``."""
    text: str
    """What happened, in a sentence."""
    reference: float | None = None
    """Largest mean KL of a label against f16 in the same steps, nats."""
    own: float | None = None
    """Largest mean KL between labels that should be equal, nats."""
    limit: float | None = None
    """Of the figure that is nearest to its limit, nats."""
    wrong_nodes: int = 0
    """Nodes that the oracle found wrong meanwhile."""
    known: str = ""
    """What of llama.cpp itself is known to make it fail, in a sentence; then it is no failure of
    the build. Empty where it passes, or nothing is known."""
    seconds: float = 0.0
    """Wall time, seconds."""

    @property
    def broken(self) -> bool:
        """Whether it ran, and not as it should."""
        return self.verdict in BROKEN


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, for one pair."""

    level: str
    """``minimal``, ``standard`` or ``full``."""
    corners: tuple[CornerRecord, ...] = ()
    """Nodes judged, by conditions; and, as ``placement``, attention that another device ran."""
    failures: tuple[NodeFailure, ...] = ()
    """Nodes that are wrong, some of each kind."""
    unknown: dict[str, int] = {}
    """Operations around attention that were not understood, and so not judged; by name."""
    rungs: tuple[RungRecord, ...] = ()
    """Batch sizes over one cache."""
    scenarios: tuple[ScenarioRecord, ...] = ()
    """Cache operations."""
    left_out: tuple[str, ...] = ()
    """What this level, or this model, leaves out, in words."""
    elsewhere: tuple[int, int] | None = None
    """Scenarios that only other pairs of a type play, and how many there are; ``None``: none, or
    an older result, which says so in ``left_out``."""
    without_flash: float | None = None
    """Of f16: largest mean KL between flash attention and single operations, nats."""
    flash_problem: str | None = None
    """Of f16: how its computation without flash attention, or the second look at it, died."""
    problem: str | None = None
    """Why nodes could not be judged, if so."""
    seconds: float = 0.0
    """Wall time, seconds."""

    @property
    def judged(self) -> tuple[CornerRecord, ...]:
        """Corners that arithmetic judged."""
        return tuple(one for one in self.corners if one.operation != PLACEMENT)
