"""Child side: what was found about one node, as plain data."""

from __future__ import annotations

from typing import NamedTuple


class Corner(NamedTuple):
    """Under which conditions an operation ran."""

    operation: str
    """``attention``, ``write``, ``rope``, ``rotation``, ``norm``, ``product``, ``softmax``,
    ``plain``, ``mask``, ``parameters``."""
    k_type: str = ""
    v_type: str = ""
    head_k: int = 0
    head_v: int = 0
    group: int = 0
    """Query heads per KV head."""
    tokens: int = 0
    """Query tokens of a node; of a rotation its rows, rounded up to a power of two."""
    length: int = 0
    """Cells seen, rounded up to a power of two."""
    mask: str = ""
    """``causal``, ``window``, ``alibi``, with ``+sinks``, ``+softcap``, ``+streams``."""
    backend: str = ""


class NodeFinding(NamedTuple):
    """One judged node."""

    corner: Corner
    node: str
    layer: int
    figure: float
    """What is compared with the limit."""
    limit: float
    error: float
    """NMSE, whatever the figure is."""
    text: str = ""
    """What is wrong, in words; empty if nothing."""

    @property
    def ratio(self) -> float:
        """The figure over its limit; above 1 the node is wrong."""
        return self.figure / self.limit if self.limit else float(self.figure > 0)


def length_class(cells: int) -> int:
    """Cells rounded up to a power of two, 32 at least."""
    return 1 << max(5, (max(cells, 1) - 1).bit_length())
