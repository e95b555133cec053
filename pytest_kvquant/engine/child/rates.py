"""Child side: what this machine does at most, beside which a speed means something.

On a CPU NumPy's BLAS reads a buffer (``dot`` of it with itself) and multiplies matrices of 32-bit
floats, a thread a part: nothing of the build under test is asked, which may be the slow one. On
another device a graph of one ``MUL_MAT`` with a matrix in f16 does both: with one column it is
bound by reading it, with as many columns as rows by multiplying. The fastest of several turns
counts: whatever else the machine does makes none of them faster.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from pytest_kvquant.engine.child.context import LoadedModel
from pytest_kvquant.engine.child.library import BadLibrary, LoadedLibrary
from pytest_kvquant.engine.child.nodes import InitParams, TensorPointer
from pytest_kvquant.engine.messages.rates import MeasureRates, RatesMeasured
from pytest_kvquant.engine.protocol import Channel, Message
from pytest_kvquant.numerics.arrays import F32

SECONDS = 0.05
"""What turns of one kind may take together, at most; at least :data:`TURNS` of them are taken."""

TURNS = 3

SIDE = 1024
"""Rows and columns of the matrices that a thread of a CPU multiplies: in its caches, mostly."""

WIDTH = 4096
"""Columns of the matrix that another device reads and multiplies."""

META_BYTES = 1 << 20
"""Room for the descriptions of a few tensors and a graph."""

BYTES_F16 = 2


class RateMessages:
    """The part of the worker that answers ``rates``."""

    channel: Channel
    model: LoadedModel
    library: LoadedLibrary

    def on_rates(self, message: Message) -> None:
        """Measure them."""
        asked = message.read(MeasureRates)
        with self.channel.spent("rates"):
            if asked.device is None:
                found = of_cpu(asked.size, asked.threads)
            else:
                try:
                    found = of_device(self.library, asked.device, asked.size)
                except BadLibrary:  # no kernel or no memory for it: nothing fails by that
                    found = 0.0, 0.0
        self.channel.tell(RatesMeasured(read=found[0], multiply=found[1]))


def of_cpu(size: int, threads: int) -> tuple[float, float]:
    """Bytes read, and operations done, a second, by so many threads.

    Args:
        size: bytes to read, by all threads together.
    """
    parts = [np.ones(max(1, size // threads // 4), np.float32) for _ in range(threads)]
    squares = [np.ones((SIDE, SIDE), np.float32) for _ in range(threads)]
    outs = [np.empty_like(square) for square in squares]
    with ThreadPoolExecutor(threads) as pool:
        times = max(1, SIDE * SIDE // parts[0].size)  # a turn is longer than its start
        reading = _fastest(lambda: [*pool.map(lambda part: _read(part, times), parts)])
        multiplying = _fastest(
            lambda: [*pool.map(lambda a, out: np.matmul(a, a, out=out), squares, outs)]
        )
    read = times * sum(part.nbytes for part in parts)
    return read / reading, threads * 2.0 * SIDE**3 / multiplying


def _read(part: F32, times: int) -> None:
    for _ in range(times):
        np.dot(part, part)


def of_device(library: LoadedLibrary, device: str, size: int) -> tuple[float, float]:
    """The same of a device, by kernels of the build.

    Raises:
        BadLibrary: the build has no such device, or that lacks the memory or the kernel.
    """
    rows = max(WIDTH, size // (WIDTH * BYTES_F16))
    with _product(library, device, rows, 1) as compute:
        reading = _fastest(compute)
    with _product(library, device, WIDTH, WIDTH) as compute:
        multiplying = _fastest(compute)
    return rows * WIDTH * BYTES_F16 / reading, 2.0 * WIDTH**3 / multiplying


@contextmanager
def _product(
    library: LoadedLibrary, device: str, rows: int, columns: int
) -> Iterator[Callable[[], object]]:
    """A graph of one product on a device; what computes it, and waits for it."""
    function, pointer = library.function, ctypes.c_void_p
    found = function("ggml_backend_dev_by_name", pointer, ctypes.c_char_p)(device.encode())
    if not found:
        raise BadLibrary(f"{library.path} has no device {device}.")
    backend = function("ggml_backend_dev_init", pointer, pointer, ctypes.c_char_p)(found, None)
    context = function("ggml_init", pointer, InitParams)(InitParams(META_BYTES, None, True))
    buffer = None
    try:
        new = function("ggml_new_tensor_2d", TensorPointer, pointer, ctypes.c_int,
                       ctypes.c_int64, ctypes.c_int64)  # fmt: skip
        matrix = new(context, library.types["f16"]["id"], WIDTH, rows)
        other = new(context, library.types["f32"]["id"], WIDTH, columns)
        out = function("ggml_mul_mat", TensorPointer, pointer, TensorPointer, TensorPointer)(
            context, matrix, other
        )
        supports = function("ggml_backend_supports_op", ctypes.c_bool, pointer, TensorPointer)
        buffer = function("ggml_backend_alloc_ctx_tensors", pointer, pointer, pointer)(
            context, backend
        )
        if not buffer or not supports(backend, out):
            raise BadLibrary(f"{device} has no memory or no kernel for a product in f16.")
        function("ggml_backend_buffer_clear", None, pointer, ctypes.c_uint8)(buffer, 0)
        graph = function("ggml_new_graph", pointer, pointer)(context)
        function("ggml_build_forward_expand", None, pointer, TensorPointer)(graph, out)
        compute = function("ggml_backend_graph_compute", ctypes.c_int, pointer, pointer)
        yield lambda: compute(backend, graph)
    finally:
        if buffer:
            function("ggml_backend_buffer_free", None, pointer)(buffer)
        function("ggml_free", None, pointer)(context)
        function("ggml_backend_free", None, pointer)(backend)


def _fastest(turn: Callable[[], object]) -> float:
    """Seconds of the fastest turn, the first, which warms up, left out."""
    turn()
    best, begun, taken = float("inf"), time.perf_counter(), 0
    while taken < TURNS or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        turn()
        best = min(best, time.perf_counter() - start)
        taken += 1
    return max(best, 1e-9)
