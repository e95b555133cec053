"""What the doctor finds when it makes a small context of each pair on the device.

A library that loads may still have no kernels: Metal's are compiled when a context is made, types
without a write end the process, pairs without attention go to the CPU unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pytest_kvquant.engine.options import flag
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import CellError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.library import Library
from pytest_kvquant.results.operations import off_device_text

THREADS = 2


class Trial(NamedTuple):
    """One pair, tried on the device."""

    pair: Pair
    failure: str = ""
    """Why no context of it decodes; empty: one does."""
    off_device: str = ""
    """What of it runs on the CPU; empty: nothing."""


def try_pairs(
    engine: Engine, model: str, library: Library, pairs: Iterable[Pair], gpu_layers: int
) -> list[Trial]:
    """A small context of each pair, in one process as long as that lives.

    Args:
        model: its path.
        library: with the devices that are used.
    """
    left, found = list(pairs), list[Trial]()
    while left:
        with Worker(engine) as worker:
            try:
                worker.library(engine.directory)
                worker.model(model, gpu_layers=gpu_layers)
                while left:
                    trial = _try(worker, left[0], library.device)
                    kept = not flag(engine.setup, "kv-offload", True)
                    found.append(trial._replace(off_device="") if kept else trial)
                    left.pop(0)
            except CellError as error:
                pair = left.pop(0)
                alike = str(error).removeprefix(f"llama.cpp makes no context for K {pair.k}, ")
                found.append(Trial(pair, failure=alike.removeprefix(f"V {pair.v}: ")))
    return found


def _try(worker: Worker, pair: Pair, device: str) -> Trial:
    operations = worker.operations(pair, threads=THREADS)
    return Trial(pair, off_device=off_device_text(operations, device))


def lines(trials: Sequence[Trial], device: str) -> list[tuple[str, bool]]:
    """What was found, a line each, and whether it is wrong; equal failures are told once."""
    told: list[tuple[str, bool]] = []
    failures: dict[str, list[str]] = {}
    for trial in trials:
        if trial.failure:
            failures.setdefault(trial.failure, []).append(str(trial.pair))
    for failure, names in failures.items():
        told.append((f"{', '.join(names)} on {device}: {failure}", True))
    healthy = [str(trial.pair) for trial in trials if not trial.failure]
    if healthy:
        told.append((f"a small context on {device} decodes: {', '.join(healthy)}", False))
    away = [str(trial.pair) for trial in trials if trial.off_device]
    if away:
        first = next(trial.off_device for trial in trials if trial.off_device)
        told.append(
            (f"off {device}, slow and judged off-device: {', '.join(away)} ({first})", False)
        )
    return told
