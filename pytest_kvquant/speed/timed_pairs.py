"""The speed of one pair, or of several that share a process and f16's samples, as a record."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec

from pytest_kvquant.errors import CellError
from pytest_kvquant.machine.hardware import machine_state
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.speed import SpeedCell, SpeedTest
from pytest_kvquant.speed import in_turn
from pytest_kvquant.speed.depth_sweep import DepthSweep
from pytest_kvquant.speed.plan import SpeedPlan
from pytest_kvquant.speed.streams import SpeedSetup


def measure(pair: Pair, plan: SpeedPlan, setup: SpeedSetup) -> SpeedCell:
    """Time one pair at all depths; whatever kills the worker is a verdict, not an exception.

    What was found before a worker died is kept, and a fail among it is confirmed all the same.
    """
    begun = time.perf_counter()
    sweep = DepthSweep(pair, plan, setup)
    sweep.attempt(sweep.visit)
    sweep.attempt(sweep.confirm)
    return _cell(sweep, time.perf_counter() - begun)


def measure_together(pairs: Sequence[Pair], plan: SpeedPlan, setup: SpeedSetup) -> list[SpeedCell]:
    """Time pairs that fit into memory side by side, in one process and against one f16.

    Where that process ends early, or a cache holds other types than it was made for (some builds
    keep what they chose for an earlier one), the pairs that it came from are timed by themselves
    and the others beside each other again; all by themselves where it is not known. So is a pair
    without others, which goes by what needs less memory where it has to.
    """
    if len(pairs) == 1:
        return [measure(pairs[0], plan, setup)]
    begun = time.perf_counter()
    sweeps = [DepthSweep(pair, plan, setup) for pair in pairs]
    try:
        in_turn.sweep(sweeps, plan.depths, plan, setup)
    except CellError as error:
        left = [pair for pair in pairs if str(pair) not in error.of]
        if len(left) == len(pairs):
            left = []
        cells = measure_together(left, plan, setup) if left else []
        beside_others = dict(zip(left, cells, strict=True))
        return [beside_others.get(pair) or measure(pair, plan, setup) for pair in pairs]
    each = (time.perf_counter() - begun) / len(pairs)
    found = []
    for sweep in sweeps:
        begun = time.perf_counter()
        sweep.look_back()
        sweep.attempt(sweep.confirm)
        cell = _cell(sweep, each + time.perf_counter() - begun)
        beside = tuple(str(pair) for pair in pairs if pair != sweep.pair)
        found.append(msgspec.structs.replace(cell, beside=beside))
    return found


def _cell(sweep: DepthSweep, wall: float) -> SpeedCell:
    tests = sweep.tests()
    found = SpeedCell(
        pair=str(sweep.pair),
        tests=tests,
        verdict=worst(tests) if sweep.complete else worst(tests, "inconclusive"),
        stopped="; ".join(sweep.stopped()),
        method=sweep.method,
        method_reason="; ".join(sweep.reasons),
    )
    if sweep.failed:
        error, message = sweep.failed
        found = msgspec.structs.replace(
            found, verdict=error.verdict, message=message, log=error.log
        )
    account = sweep.account
    return msgspec.structs.replace(
        found,
        rollback=account.description.rollback if account.description else "",
        prefilled={name: tuple(counts) for name, counts in account.prefilled.items()},
        wall=wall,
        library=account.library_seconds,
        remarks=tuple(account.remarks),
        off_device=account.off_device or "",
        machine=machine_state(),
    )


def worst(tests: Iterable[SpeedTest], *more: str) -> str:
    """The gravest verdict of the tests of a pair, and of ``more``; declared cliffs do not count."""
    verdicts = {test.verdict for test in tests if not test.declared} | {*more}
    return next(
        (one for one in ("cliff", "fail", "inconclusive") if one in verdicts),
        "pass",
    )
