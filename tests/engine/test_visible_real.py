"""A device that nobody asked for does not stop a run, and the one in use keeps its name.

Two GPUs are simulated in the worker: it numbers what ``CUDA_VISIBLE_DEVICES`` leaves from 0 again,
and aborts as CUDA does when the memory of a full one is asked; the CPU computes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run import start

from pytest_kvquant.errors import SettingsError

TWO_GPUS = """
import os, sys
from pytest_kvquant.engine.child.library import LoadedLibrary

_devices, _list = LoadedLibrary.devices, LoadedLibrary.device_list
seen = [int(one) for one in os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")]
seen = [one for one in seen if one in (0, 1)]


def devices(self):
    found = _devices(self)
    for inner, physical in enumerate(seen):
        if physical == 0:
            print("CUDA error: out of memory", file=sys.stderr, flush=True)
            os.abort()
        found.insert(inner, dict(name=f"CUDA{inner}", description=f"Simulated {physical}", gpu=True,
                                 accelerator=False, unified=False, free=1 << 33, total=1 << 33))
    return found


def device_list(self, name):
    assert name == "CPU" or int(name.removeprefix("CUDA")) < len(seen), name
    return _list(self, "CPU")


LoadedLibrary.devices, LoadedLibrary.device_list = devices, device_list
"""


def test_a_full_device_that_is_not_in_use_stops_nothing(tmp_path: Path) -> None:
    session = start(
        tmp_path, hook=TWO_GPUS, devices=("CUDA1",), pairs=("q8_0/q8_0",), ctx=64, chunks=2,
        decode=0, trajectory=0, recall=0,
    )  # fmt: skip
    try:
        cell = session.measure(session.pairs[0])
        library = session.result().environment.library
    finally:
        session.close()
    assert cell.quality is not None, cell.message
    assert [(one.name, one.description) for one in library.devices] == [("CUDA1", "Simulated 1")]


def test_a_device_that_is_not_there_is_told_with_all_that_are(tmp_path: Path) -> None:
    empty = TWO_GPUS.replace("if physical == 0:", "if False:")
    with pytest.raises(SettingsError, match=r"CUDA7.* has no such device\. It has: CUDA0, CUDA1,"):
        start(tmp_path, hook=empty, devices=("CUDA7",), pairs=("q8_0/q8_0",))
