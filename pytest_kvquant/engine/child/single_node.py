"""Child side: a graph of one node, built from a reproducer and computed on any backend."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from pytest_kvquant.engine.child.codec import Codecs
from pytest_kvquant.engine.child.facts import Facts
from pytest_kvquant.engine.child.library import BadLibrary, LoadedLibrary
from pytest_kvquant.engine.child.mirror import Mirrors
from pytest_kvquant.engine.child.nodes import Ggml, InitParams, Node, TensorAt, TensorPointer
from pytest_kvquant.engine.child.oracle import Oracle
from pytest_kvquant.engine.child.reproducer import NodeDescribed, TensorDescribed, load
from pytest_kvquant.engine.child.values import Values
from pytest_kvquant.engine.messages.kernels import NodeJudged, NodeOfFile, Reproduced
from pytest_kvquant.numerics.arrays import U8

ROWS = 64
"""Query rows that are judged."""

META_BYTES = 1 << 20
"""Room for the descriptions of a few tensors and a graph."""


def recompute(library: LoadedLibrary, path: Path, device: str | None) -> Reproduced:
    """Compute the node of a file again and judge it, and what the file says of it.

    Raises:
        BadLibrary: the file is no reproducer, or this library lacks its operation or a type.
    """
    try:
        about, arrays = load(path)
    except ValueError as error:
        raise BadLibrary(str(error)) from None
    ggml = Ggml(library)
    graph = _Graph(ggml, about, arrays)
    name = graph.compute(device)
    node = Node(ggml, graph.node)
    codecs = Codecs(library)
    values = Values(codecs)
    facts = Facts(rotated=tuple(about["cache_types"]))
    oracle = Oracle(values, facts, Mirrors((), unified=True), seed=0, rows=ROWS)
    found = oracle.judge(node, about["layer"])
    out = values.floats(_rows(graph.out, node), node.type)
    stored = values.floats(_rows(arrays["out"], node), node.type)
    size = float(np.square(stored).sum()) or 1.0
    change = float(np.square(out - stored).sum()) / size
    graph.free()
    return Reproduced(
        about=NodeOfFile(
            operation=about["operation"],
            name=about["name"],
            layer=about["layer"],
            text=about["text"],
            build=about["build"],
        ),
        device=name,
        change=change if np.isfinite(change) else 1e30,
        understood=found is not None,
        findings=[
            NodeJudged(ratio=min(one.ratio, 1e30), error=min(one.error, 1e30), text=one.text)
            for one in found or ()
        ],
    )


def _rows(raw: U8, node: Node) -> U8:
    size = node.ggml.row_bytes(node.type, node.ne[0])
    return raw[: len(raw) // size * size].reshape(-1, size)


class _Graph:
    """Tensors of one node, made without the operation's own constructor: builds differ in those."""

    def __init__(self, ggml: Ggml, about: NodeDescribed, arrays: dict[str, U8]) -> None:
        self._ggml, self._arrays = ggml, arrays
        self._function = function = ggml.library.function
        pointer = ctypes.c_void_p
        self._context = function("ggml_init", pointer, InitParams)(
            InitParams(META_BYTES, None, True)
        )
        self._new = function(
            "ggml_new_tensor_4d", TensorPointer, pointer, ctypes.c_int, *[ctypes.c_int64] * 4
        )
        sources = [None if one is None else self._tensor(one) for one in about["sources"]]
        self.node = self._tensor(about)
        self._sources = sources
        tensor = self.node.contents
        tensor.op = self._number(about["operation"])
        for place, value in enumerate(about["parameters"]):
            tensor.op_params[place] = value
        for place, source in enumerate(sources):
            if source is not None:
                tensor.src[place] = source
        if (target := self._target(about)) is not None:
            tensor.view_src = target

    def compute(self, device: str | None) -> str:
        """Compute the node; the name of the device that did."""
        function, pointer = self._function, ctypes.c_void_p
        by_name = function("ggml_backend_dev_by_name", pointer, ctypes.c_char_p)
        by_type = function("ggml_backend_dev_by_type", pointer, ctypes.c_int)
        found = by_name(device.encode()) if device else by_type(0)
        if not found:
            raise BadLibrary(f"{self._ggml.library.path} has no device {device or 'CPU'}.")
        backend = function("ggml_backend_dev_init", pointer, pointer, ctypes.c_char_p)(found, None)
        supports = function("ggml_backend_supports_op", ctypes.c_bool, pointer, TensorPointer)
        function("ggml_backend_alloc_ctx_tensors", pointer, pointer, pointer)(
            self._context, backend
        )
        if not supports(backend, self.node):
            raise BadLibrary("This device has no kernel for the node of the file.")
        for number, source in enumerate(self._sources):
            if source is not None:
                self._ggml.write(source, self._arrays[f"source{number}"])
        graph = function("ggml_new_graph", pointer, pointer)(self._context)
        function("ggml_build_forward_expand", None, pointer, TensorPointer)(graph, self.node)
        code = function("ggml_backend_graph_compute", ctypes.c_int, pointer, pointer)(
            backend, graph
        )
        if code != 0:
            raise BadLibrary(f"The device failed to compute the node (status {code}).")
        name = function("ggml_backend_name", ctypes.c_char_p, pointer)(backend)
        self.out = self._ggml.read(self.node, len(self._arrays["out"]), 0)
        return str(name.decode())

    def free(self) -> None:
        """Free the descriptions; the process ends soon and takes the buffers along."""
        self._function("ggml_free", None, ctypes.c_void_p)(self._context)

    def _tensor(self, about: TensorDescribed) -> TensorAt:
        entry = self._ggml.library.types.get(about["type"])
        if entry is None:
            raise BadLibrary(f"{self._ggml.library.path} has no type {about['type']}.")
        tensor: TensorAt = self._new(self._context, entry["id"], *about["ne"])
        name = str(about["name"]).encode()[:60]
        setter = self._function("ggml_set_name", TensorPointer, TensorPointer, ctypes.c_char_p)
        setter(tensor, name)
        return tensor

    def _target(self, about: NodeDescribed) -> TensorAt | None:
        """The tensor into which the operation writes; ``None``: its result is its own.

        A cast is a copy whose target is itself.
        """
        place = {"SET_ROWS": 2, "CPY": 1}.get(about["operation"])
        described = None if place is None else about["sources"][place]
        if place is None or described is None:
            return None
        if about["operation"] == "CPY" and described["name"] == about["name"]:
            self._sources[place] = None
            self.node.contents.src[place] = self.node
            return None
        return self._sources[place]

    def _number(self, operation: str) -> int:
        for number in range(256):
            name = self._ggml.op_name(number)
            if name == operation:
                return number
            if not name or name == "COUNT":
                break
        raise BadLibrary(f"{self._ggml.library.path} has no operation {operation}.")
