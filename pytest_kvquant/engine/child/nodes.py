"""Child side: nodes of a compute graph as ggml keeps them in memory.

``struct ggml_tensor`` has no accessors for most of its fields. Its layout is declared here and
checked once per library on tensors that the library itself makes: where it does not fit, nothing is
read and the reason is said.
"""

from __future__ import annotations

import ctypes
import functools
import math
import re
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.child.library import BadLibrary, LoadedLibrary
from pytest_kvquant.numerics.arrays import U8
from pytest_kvquant.numerics.buffers import of_processor

MOST_SOURCES = 10
NAME_BYTES = 64


class RawTensor(ctypes.Structure):
    """``struct ggml_tensor`` of ggml.h, equal in upstream and the forks tried."""


RawTensor._fields_ = (
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(RawTensor) * MOST_SOURCES),
    ("view_src", ctypes.POINTER(RawTensor)),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * NAME_BYTES),
    ("extra", ctypes.c_void_p),
)

TensorPointer = ctypes.POINTER(RawTensor)
TensorAt: TypeAlias = "ctypes._Pointer[RawTensor]"


class InitParams(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


_COPY = re.compile(r"[^#]+#(.+)#\d+")
"""Backend, name of the tensor, number of the copy: how ggml_backend_sched names its copies."""


@functools.lru_cache(maxsize=1 << 14)
def name_of(raw: bytes) -> tuple[str, bool]:
    """A tensor's name as the graph has it, and whether it is a copy on another device.

    >>> name_of(b"cache_k_l0"), name_of(b"MTL0#attn_inp_k_rot#0")
    (('cache_k_l0', False), ('attn_inp_k_rot', True))
    """
    name = raw.decode("utf-8", "replace")
    copied = _COPY.fullmatch(name)
    return (copied[1], True) if copied else (name, False)


class Ggml:
    """The library's functions on tensors.

    Raises:
        BadLibrary: one is missing, or tensors are laid out in a way that is not known.
    """

    def __init__(self, library: LoadedLibrary) -> None:
        self.library = library
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._op_name = library.function("ggml_op_name", ctypes.c_char_p, ctypes.c_int)
        self._get = library.function(
            "ggml_backend_tensor_get", None, TensorPointer, pointer, size, size
        )
        self._set = library.function(
            "ggml_backend_tensor_set", None, TensorPointer, pointer, size, size
        )
        self._is_host = library.function("ggml_backend_buffer_is_host", ctypes.c_bool, pointer)
        self._buffer_name = library.function("ggml_backend_buffer_name", ctypes.c_char_p, pointer)
        self._function_name = library.function("ggml_unary_op_name", ctypes.c_char_p, ctypes.c_int)
        self._ops: dict[int, str] = {}
        self.graph: dict[bytes, int] = {}
        """Addresses of the nodes of the graph under way, by name."""
        self.type_names = {entry["id"]: name for name, entry in library.types.items()}
        self._check_layout()

    def op_name(self, number: int) -> str:
        """Name of an operation: ``MUL_MAT``, ``ROPE``, …"""
        if number not in self._ops:
            self._ops[number] = self._op_name(number).decode()
        return self._ops[number]

    def function_name(self, number: int) -> str:
        """What a UNARY operation computes: ``SIGMOID``, ``TANH``, …"""
        found: bytes = self._function_name(number)
        return found.decode()

    def row_bytes(self, kind: str, elements: int) -> int:
        """Bytes of so many elements."""
        entry = self.library.types[kind]
        return elements // entry["block"] * entry["bytes"]

    def buffer(self, address: int | None) -> tuple[str, bool]:
        """A buffer's name and whether the processor can read it directly.

        Asked each time: buffers come and go with contexts, and with graphs that grow, and another
        one may lie where one was.
        """
        if not address:
            return "", False
        name = self._buffer_name(address)
        return name.decode() if name else "", bool(self._is_host(address))

    def read(self, raw: TensorAt, size: int, offset: int) -> U8:
        """Bytes of a tensor, copied out of whatever memory it lies in."""
        out = np.empty(size, np.uint8)
        self._get(raw, out.ctypes.data, offset, size)
        return out

    def write(self, raw: TensorAt, data: U8, offset: int = 0) -> None:
        """Overwrite bytes of a tensor."""
        data = np.ascontiguousarray(data)
        self._set(raw, data.ctypes.data, offset, data.nbytes)

    def _check_layout(self) -> None:
        """Tensors that the library makes must show their known contents at the declared places."""
        function, pointer = self.library.function, ctypes.c_void_p
        init = function("ggml_init", pointer, InitParams)
        free = function("ggml_free", None, pointer)
        new = function("ggml_new_tensor_4d", TensorPointer, pointer, ctypes.c_int,
                       *[ctypes.c_int64] * 4)  # fmt: skip
        view = function("ggml_view_1d", TensorPointer, pointer, TensorPointer, ctypes.c_int64,
                        ctypes.c_size_t)  # fmt: skip
        scale = function("ggml_scale", TensorPointer, pointer, TensorPointer, ctypes.c_float)
        add = function("ggml_add", TensorPointer, pointer, TensorPointer, TensorPointer)
        name = function("ggml_set_name", TensorPointer, TensorPointer, ctypes.c_char_p)
        context = init(InitParams(1 << 16, None, True))
        try:
            one = new(context, self.library.types["f32"]["id"], 3, 5, 7, 11)
            name(one, b"kvquant layout")
            part, scaled, total = view(context, one, 2, 8), scale(context, one, 2.5), None
            total = add(context, one, scaled)
            fits = self._shows(one, part, scaled, total)
        finally:
            free(context)
        if not fits:
            raise BadLibrary(
                f"{self.library.path} lays out ggml_tensor in a way that is not known: nodes of "
                "its graphs cannot be read."
            )

    def _shows(self, one: TensorAt, part: TensorAt, scaled: TensorAt, total: TensorAt) -> bool:
        def address(tensor: TensorAt) -> int | None:
            return ctypes.cast(tensor, ctypes.c_void_p).value

        first, second = one.contents, part.contents
        factor = np.frombuffer(bytes(scaled.contents.op_params), np.float32)[0]
        return (
            list(first.ne) == [3, 5, 7, 11]
            and list(first.nb) == [4, 12, 60, 420]
            and first.name == b"kvquant layout"
            and address(second.view_src) == address(one)
            and second.view_offs == 8
            and factor == 2.5
            and self.op_name(scaled.contents.op) == "SCALE"
            and self.op_name(total.contents.op) == "ADD"
            and address(total.contents.src[0]) == address(one)
            and address(total.contents.src[1]) == address(scaled)
            and not total.contents.src[2]
        )


class Node:
    """A tensor of a graph, read when it is looked at.

    ``ne`` are elements per dimension, innermost first; ``nb`` bytes to the next one. A copy that
    the scheduler made for another device has the name of what it is a copy of.
    """

    __slots__ = (
        "_root", "address", "copied", "data", "ggml", "name", "nb", "ne", "op", "raw", "type",
    )  # fmt: skip

    def __init__(self, ggml: Ggml, raw: TensorAt) -> None:
        self.ggml, self.raw = ggml, raw
        tensor = raw.contents
        self.address = ctypes.addressof(tensor)
        self.name, self.copied = name_of(tensor.name)
        self.op = ggml.op_name(tensor.op)
        self.type = ggml.type_names.get(tensor.type, f"type {tensor.type}")
        self.ne, self.nb = tuple(tensor.ne), tuple(tensor.nb)
        self.data = tensor.data
        self._root: Node | None = None

    @property
    def sources(self) -> Iterator[Node]:
        """Its inputs, in order; a missing one is stepped over."""
        for found in self.raw.contents.src:
            if found:
                yield Node(self.ggml, found)

    def source(self, number: int) -> Node | None:
        """One input."""
        found = self.raw.contents.src[number]
        return Node(self.ggml, found) if found else None

    @property
    def original(self) -> Node | None:
        """What it is a copy of, where the scheduler made it for another device; else itself.

        ``None``: a copy of a tensor that is not known.
        """
        if self.op != "NONE" or not self.copied:
            return self
        address = self.ggml.graph.get(self.name.encode())
        return Node(self.ggml, ctypes.cast(address, TensorPointer)) if address else None

    @property
    def root(self) -> Node:
        """The tensor whose memory it shows; itself unless it is a view."""
        if self._root is None:
            found = self.raw.contents.view_src
            if not found:
                return self
            self._root = Node(self.ggml, found)
        return self._root

    @property
    def offset(self) -> int:
        """Bytes from the start of :attr:`root`."""
        return int(self.raw.contents.view_offs)

    @property
    def backend(self) -> str:
        """Name of the buffer that it lies in: ``CPU``, ``CUDA0``, …"""
        root = self.root.raw.contents
        return self.ggml.buffer(root.buffer)[0]

    @property
    def on_cpu(self) -> bool:
        """Whether the processor computed it: its result lies in the CPU's memory."""
        return of_processor(self.backend)

    @property
    def integers(self) -> npt.NDArray[np.int32]:
        """The operation's parameters as int32, shape ``(16,)``."""
        return np.frombuffer(bytes(self.raw.contents.op_params), np.int32)

    @property
    def floats(self) -> npt.NDArray[np.float32]:
        """The operation's parameters as float32, shape ``(16,)``."""
        return self.integers.view(np.float32)

    @property
    def function(self) -> str:
        """What a UNARY operation computes."""
        return self.ggml.function_name(int(self.integers[0]))

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.ne)

    @property
    def extent(self) -> int:
        """Bytes from its first to behind its last element."""
        block = self.ggml.row_bytes(self.type, max(self.ne[0], 1))
        inner = (
            block
            if self.nb[0] == self.ggml.library.types[self.type]["bytes"]
            else ((self.ne[0] - 1) * self.nb[0] + self.ggml.library.types[self.type]["bytes"])
        )
        return int(inner + sum((self.ne[i] - 1) * self.nb[i] for i in (1, 2, 3)))

    def bytes(self, size: int | None = None, offset: int = 0) -> U8:
        """Bytes of its memory from ``offset`` on, without a copy where the processor can read."""
        size = self.extent - offset if size is None else size
        if self.ggml.buffer(self.root.raw.contents.buffer)[1] and self.data:
            memory = (ctypes.c_uint8 * size).from_address(self.data + offset)
            return np.ndarray(size, np.uint8, memoryview(memory))
        return self.ggml.read(self.raw, size, offset)
