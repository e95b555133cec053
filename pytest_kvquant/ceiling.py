"""The largest context that really works, found by bisection in throw-away processes.

Whatever ends an attempt (out of memory, an abort, the system's killer) is an answer: that context
does not fit. A CPU machine is never driven into swap: every process gets a limit of what was free
when the search began, and contexts whose caches alone would exceed it are not tried.
"""

from __future__ import annotations

import time

import msgspec

from pytest_kvquant import geometry
from pytest_kvquant.engine.client import Engine
from pytest_kvquant.engine.timed import TimedWorker
from pytest_kvquant.errors import CellError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.report.ceiling import Attempt, Ceiling
from pytest_kvquant.speed.lanes import Bed
from pytest_kvquant.speed.room import free_memory

STEP = 256
"""llama.cpp rounds a context up to a multiple of this."""

PRECISION = 0.025
"""The search ends when the bounds are this close, as a share."""

BATCH = 256
"""Tokens decoded at the end."""


def search(pair: Pair, most: int, bed: Bed) -> Ceiling:
    """Find the largest context of a pair, at most ``most`` tokens.

    Args:
        most: no larger context is tried.
    """
    begun = time.perf_counter()
    room = free_memory(bed)
    types = msgspec.to_builtins(bed.library.types)
    need = geometry.need(bed.model, pair, types, ubatch=BATCH)
    highest = max(STEP, int(min(most, need.most_tokens(room))) // STEP * STEP)
    attempts: list[Attempt] = []

    def fits(context: int) -> bool:
        attempts.append(_attempt(pair, context, room, bed))
        return attempts[-1].outcome == "fits"

    low, high = 0, highest + STEP
    tried = highest
    while tried > low:
        if fits(tried):
            low = tried
        else:
            high = tried
        if high - low <= max(STEP, PRECISION * low):
            break
        tried = (low + high) // 2 // STEP * STEP
    return Ceiling(
        pair=str(pair),
        tokens=low,
        bound=highest,
        predicted=need.predicted_tokens(room - bed.model.size),
        memory=room,
        bytes_per_token=need.per_token,
        attempts=tuple(attempts),
        seconds=time.perf_counter() - begun,
    )


def _attempt(pair: Pair, context: int, room: int, bed: Bed) -> Attempt:
    begun = time.perf_counter()
    outcome, text = "fits", ""
    engine: Engine = bed.engine
    try:
        with TimedWorker(engine) as worker:
            worker.library(engine.directory)
            worker.model(bed.model.path, gpu_layers=bed.gpu_layers)
            if not any(device.gpu for device in bed.library.devices) or bed.gpu_layers == 0:
                worker.limit_memory(room)
            worker.try_context(pair, ctx=context, batch=BATCH, threads=bed.threads)
    except CellError as error:
        outcome, text = error.verdict, str(error)
    return Attempt(context=context, outcome=outcome, text=text, seconds=time.perf_counter() - begun)
