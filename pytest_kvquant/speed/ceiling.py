"""The largest context that really works, found by bisection in throw-away processes.

Whatever ends an attempt (out of memory, an abort, the system's killer) is an answer: that context
does not fit. Only silence is none: the machine may be slow. Contexts whose caches alone would
exceed what was free when the search began are not tried, unless so much works on a GPU, which need
not hold all weights. Where the CPU computes every process is limited to what was free, so that it
is not driven into swap. macOS keeps no such limit, a GPU that shares the host's memory none either,
nor does one beside caches in the host's: there the search ascends from small contexts, watches the
machine's memory and swap, and ends when the machine begins to suffer. The record says which.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.timed import TimedWorker
from pytest_kvquant.errors import CellError, CellStrained
from pytest_kvquant.inputs import geometry
from pytest_kvquant.machine.strain import Strain
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.ceiling import Attempt, Ceiling
from pytest_kvquant.speed.methods import cache_need, has_own_memory, most_room
from pytest_kvquant.speed.streams import SpeedSetup

STRAINED = CellStrained.verdict

STEP = geometry.CELLS

FIRST = 16 * STEP
"""Where an ascent begins."""

PRECISION = 0.01
"""The search ends when the bounds are this close, as a share."""


def search(pair: Pair, most: int, setup: SpeedSetup, *, floor: int = 0) -> Ceiling:
    """Find the largest context of a pair, at most ``most`` tokens.

    Args:
        most: no larger context is tried.
        floor: tokens that have to fit: tried too where the search ends just below.
    """
    begun = time.perf_counter()
    room, need = most_room(setup), cache_need(pair, setup)
    possible = int(min(most, need.most_tokens(room)))
    highest = possible // STEP * STEP or min(most, STEP)
    tried: list[_Tried] = []

    def fits(context: int) -> bool:
        tried.append(_try(pair, context, room, setup))
        return tried[-1].fits

    def strained() -> bool:
        return bool(tried) and tried[-1].attempt.outcome == STRAINED

    if _may_swap(setup):
        tokens = _ascend(highest, fits, strained)
    else:
        on_gpu = setup.memory_limit is None and has_own_memory(setup)
        tokens = _bisect(highest, fits, max(highest, most // STEP * STEP) if on_gpu else highest)
        highest = max(highest, tokens)
    if strained():
        highest = max(one.attempt.context for one in tried)
    elif (
        0 < tokens < floor < min((one.attempt.context for one in tried if not one.fits), default=0)
    ):
        tokens = floor if fits(floor) else tokens
    return Ceiling(
        pair=str(pair),
        tokens=tokens,
        bound=highest,
        predicted=need.predicted_tokens(room),
        memory=room,
        limited=any(one.limited for one in tried),
        bytes_per_token=need.per_token,
        windowed_bytes_per_token=need.windowed,
        window_cells=need.cells,
        batch=setup.batch,
        ubatch=setup.ubatch,
        sequences=max(one.sequences for one in tried),
        attempts=tuple(one.attempt for one in tried),
        seconds=time.perf_counter() - begun,
    )


def _may_swap(setup: SpeedSetup) -> bool:
    """Whether a process can take more memory than the machine has, and nothing keeps it from it."""
    gpus = setup.library.gpus_in_use(setup.gpu_layers)
    if gpus and not setup.kv_offload:
        return True  # its caches are the host's, and a limit would keep the GPU's driver from work
    return any(device.unified for device in gpus) or (not gpus and sys.platform != "linux")


def _ascend(highest: int, fits: Callable[[int], bool], strained: Callable[[], bool]) -> int:
    """The largest that fits, reached from below, each step at most twice the one before.

    Args:
        strained: whether the last attempt made the machine suffer: then no other is made.
    """
    low, at = 0, min(highest, FIRST)
    while fits(at):
        if at == highest:
            return at
        low, at = at, min(highest, 2 * at)
    high = at
    while not strained() and high - low > max(STEP, PRECISION * low):
        middle = (low + high) // 2 // STEP * STEP
        if low == 0:
            middle = min(middle, STEP)
        if fits(middle):
            low = middle
        elif low == 0:
            return 0
        else:
            high = middle
    return low


def _bisect(highest: int, fits: Callable[[int], bool], beyond: int) -> int:
    """The largest that fits. What fails at the smallest too has other reasons than its size.

    Args:
        beyond: no larger one is tried, where ``highest`` fits: a GPU does not hold all weights, as
            the table of embeddings, or the experts that were left to the CPU.
    """
    if fits(highest):
        low, more = highest, max(STEP, highest // 16 // STEP * STEP)
        while low < beyond and fits(high := min(beyond, low + more)):
            low, more = high, 2 * more
        if low == beyond:
            return low
    elif highest <= STEP or not fits(STEP):
        return 0
    else:
        low, high = STEP, highest
    while high - low > max(STEP, PRECISION * low):
        middle = (low + high) // 2 // STEP * STEP
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


class _Tried(NamedTuple):
    """An attempt, and in what process."""

    attempt: Attempt
    limited: bool = False
    sequences: int = 0

    @property
    def fits(self) -> bool:
        return self.attempt.outcome == "fits"


def _try(pair: Pair, context: int, room: int, setup: SpeedSetup) -> _Tried:
    begun = time.perf_counter()
    outcome, text = "fits", ""
    limited, sequences = False, 0
    engine: Engine = setup.engine
    strain = Strain() if _may_swap(setup) else None
    try:
        with TimedWorker(
            engine, timesheet=setup.timesheet, watch=strain.complaint if strain else None
        ) as worker:
            worker.library(engine.directory)
            worker.model(setup.model.path, gpu_layers=setup.gpu_layers)
            if not setup.library.gpus_in_use(setup.gpu_layers):
                limited = worker.limit_memory(room)
            sequences = worker.try_context(
                pair, ctx=context, batch=setup.batch, ubatch=setup.ubatch, threads=setup.threads
            )
    except CellError as error:
        outcome, text = error.verdict, str(error)
    seconds = time.perf_counter() - begun
    attempt = Attempt(context=context, outcome=outcome, text=text, seconds=seconds)
    return _Tried(attempt, limited, sequences)
