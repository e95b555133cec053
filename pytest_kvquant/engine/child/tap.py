"""Child side: the scheduler's eval callback, which hands over each node of a graph.

Asked for a node, it may say that it wants its data; the scheduler then computes up to that node,
waits, and shows it. While nothing is wanted a graph is computed as without a callback. What is
wanted are all operations of sampled layers between the projections and the output projection: in
place operations and fused kernels would otherwise hide the inputs of what is judged.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Collection
from typing import Protocol

from pytest_kvquant.engine.child.nodes import (
    Ggml,
    Node,
    RawTensor,
    TensorAt,
    TensorPointer,
    name_of,
)

VIEWS = frozenset({"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"})
"""Operations that compute nothing."""

FORESEEN = frozenset({"SET_ROWS", "FLASH_ATTN_EXT", "SOFT_MAX", "ROPE"})
"""Operations of which a watcher hears before they are computed."""

ATTENDS = frozenset({"FLASH_ATTN_EXT", "SOFT_MAX"})

EMBEDDINGS = "token_embd.weight"
"""Whose rows a graph begins with."""

_LAYER = re.compile(r"(?:-|cache_[a-z_]*_l)(\d+)(?: |$)")
_ENDS = re.compile(r"attn_(out|output|o|v_b|kv_b)\b.*weight|attn_output")


def _begins(op: str, tensor: RawTensor) -> bool:
    """Whether a graph of tokens begins with this node."""
    if op != "GET_ROWS" or not tensor.src[0]:
        return False
    return name_of(tensor.src[0].contents.name)[0] == EMBEDDINGS


@functools.cache
def _layer_of(name: bytes) -> int | None:
    found = _LAYER.search(name.decode("utf-8", "replace"))
    return None if found is None else int(found[1])


class Watcher(Protocol):
    """Who is shown nodes."""

    def begins(self) -> None:
        """A graph begins."""

    def ahead(self, node: Node, layer: int) -> None:
        """A node of a sampled layer comes next; its constant inputs are in place."""

    def computed(self, node: Node, layer: int) -> None:
        """A wanted node has been computed."""

    def leaves(self, node: Node) -> None:
        """The output projection of a sampled layer comes next."""


class Tap:
    """Made before the context; its :attr:`callback` goes into the context's parameters.

    Args:
        layers: sampled ones; can be changed between graphs.
    """

    def __init__(self, ggml: Ggml, watcher: Watcher, layers: Collection[int]) -> None:
        self.ggml, self.watcher, self.layers = ggml, watcher, frozenset(layers)
        self.active = False
        """Whether nodes of sampled layers are wanted; if not, only :meth:`Watcher.ahead` hears."""
        self.error: BaseException | None = None
        """What a watcher raised: a callback has nobody to raise it to."""
        self.spoil: Callable[[Node, int], None] | None = None
        """Changes a node in memory before anybody looks: tests plant their faults here."""
        self.spoil_ahead: Callable[[Node, int], None] | None = None
        """The same just before a node is computed: its inputs and parameters."""
        self._layer, self._past, self._attended = -1, False, False
        self._asked_for: set[int] = set()
        """Nodes of the graph under way: one that comes again is of the next graph."""

    def attach(self, params: ctypes.Structure) -> None:
        """Put the callback into context parameters."""
        kind = {entry[0]: entry[1] for entry in params._fields_}["cb_eval"]
        self._callback = kind(self._called)
        params.cb_eval = self._callback

    def check(self) -> None:
        """Raise what a watcher raised meanwhile."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _called(self, pointer: int, ask: bool, _data: object) -> bool:
        try:
            if ask:
                return self._asked(pointer)
            return self._shown(ctypes.cast(pointer, TensorPointer))
        except Exception as error:
            self.error = self.error or error
            return not ask

    def _asked(self, address: int) -> bool:
        tensor = RawTensor.from_address(address)
        op, name = self.ggml.op_name(tensor.op), tensor.name
        if address in self._asked_for or _begins(op, tensor):
            self.begin()  # a graph that is built anew within a decode has other addresses
        self._asked_for.add(address)
        self.ggml.graph[name] = address
        if op in VIEWS:
            return False  # of another layer's cache, maybe: some layers read an earlier one's
        layer = None if op == "CONT" and name.startswith(b"cache_") else _layer_of(name)
        if layer is not None and layer != self._layer:
            self._layer, self._past, self._attended = layer, False, False
        self._attended = self._attended or op in ATTENDS
        if self.spoil_ahead is not None:
            self.spoil_ahead(self._node(address), self._layer)
        sampled = self._layer in self.layers
        if sampled and op in FORESEEN:
            self.watcher.ahead(self._node(address), self._layer)
        wanted = self.active and sampled and not self._past
        if op == "MUL_MAT" and tensor.src[0]:
            weight, _ = name_of(tensor.src[0].contents.name)
            if self._attended and _ENDS.search(weight):  # kv_b may stand before attention, too
                self._past = True
                if wanted:
                    self.watcher.leaves(self._node(address))
                return False
        return wanted or self.spoil is not None

    def _node(self, address: int) -> Node:
        return Node(self.ggml, ctypes.cast(address, TensorPointer))

    def begin(self) -> None:
        """The next node is of a new graph."""
        self._layer, self._past, self._attended = -1, False, False
        self._asked_for.clear()
        self.ggml.graph.clear()
        self.watcher.begins()

    def _shown(self, raw: TensorAt) -> bool:
        node = Node(self.ggml, raw)
        if self.spoil is not None:
            self.spoil(node, self._layer)
        if self.active and self._layer in self.layers and not self._past:
            self.watcher.computed(node, self._layer)
        return True
