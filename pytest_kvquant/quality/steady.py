"""What a cell's decodes and contexts leave behind in memory, measured in its own process.

Readings are of what the process has of its own and of what each GPU has free. The median of what is
left from one reading to the next is taken: an allocator that grows once is no leak, and one that
leaks does so every time. The first step of each row is left out, because kernels and workspaces
are loaded then.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.memory import SteadyMemory

CTX = 512
"""Tokens of the contexts that are made for it, at most."""

Readings = Sequence[Mapping[str, int]]
"""Bytes left by device, one entry a reading."""


def measure(worker: Worker, pair: Pair, shape: BatchShape, log: str) -> SteadyMemory:
    """Decode and make contexts beside the open one.

    Args:
        log: of the cell's own context, from when it was made.

    Raises:
        CellError: the worker dies.
    """
    small = msgspec.structs.replace(shape, ctx=min(shape.ctx, CTX), sequences=1)
    found = worker.steady(pair, small)
    return SteadyMemory(
        per_token=kept(found.decode, found.tokens),
        per_context=kept(found.contexts, 1),
        compute=compute_buffers(log),
        elsewhere=moved(found.idle),
    )


def moved(readings: Readings) -> dict[str, float]:
    """The most that what is left of a GPU moves between two readings, in either direction.

    >>> moved([{"CUDA0": 100, "host": 0}, {"CUDA0": 40, "host": -9}, {"CUDA0": 90, "host": -9}])
    {'CUDA0': 60.0}
    """
    devices = set(readings[0]) - {"host"} if readings else ()
    return {
        device: float(max(abs(a[device] - b[device]) for a, b in pairwise(readings)))
        for device in devices
    }


def kept(readings: Readings, count: int) -> dict[str, float]:
    """Bytes that stay per unit, by device, where readings are ``count`` units apart.

    >>> kept([{"host": 0}, {"host": -900}, {"host": -1000}, {"host": -1100}, {"host": -1200}], 4)
    {'host': 25.0}
    """
    devices = readings[0] if readings else {}
    return {
        device: statistics.median(
            before[device] - after[device] for before, after in pairwise(readings[1:])
        )
        / count
        for device in devices
    }


def compute_buffers(log: str) -> dict[str, float]:
    """MiB of compute buffers by device, of the last context that the log tells of.

    >>> compute_buffers("sched_reserve:        CPU compute buffer size =    18.31 MiB")
    {'CPU': 18.31}
    """
    found = re.findall(r"(\S+) compute buffer size\s*=\s*([\d.]+) MiB", log)
    return {device: float(size) for device, size in found}
