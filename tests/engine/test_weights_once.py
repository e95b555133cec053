"""One set of weights on a device at a time, also where the reference is another build's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.run import start

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.parent.process import WorkerProcess
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.library import Device, Library
from pytest_kvquant.session import prepared
from pytest_kvquant.session.library import shares_device


@pytest.mark.parametrize("shared", [True, False])
def test_workers_of_the_measured_build_rest_while_the_reference_is_computed(
    shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: set[int] = set()
    counts: list[int] = []
    load, end = Worker.model, WorkerProcess.__exit__

    def model(self: Worker, path: str, **asked: Any) -> Any:
        if not asked.get("vocabulary_only"):
            loaded.add(id(self))
            counts.append(len(loaded))
        return load(self, path, **asked)

    def ended(self: WorkerProcess, *error: Any) -> None:
        loaded.discard(id(self))
        end(self, *error)

    monkeypatch.setattr(Worker, "model", model)
    monkeypatch.setattr(WorkerProcess, "__exit__", ended)
    monkeypatch.setattr(prepared, "shares_device", lambda *_: shared)
    session = start(
        tmp_path, pairs=("q8_0/q8_0", "q4_0/q4_0"), isolation="warm", reference_devices=("CPU",),
        decode=8, trajectory=2,
    )  # fmt: skip
    try:
        cells = [session.measure(Pair(name, name)) for name in ("q8_0", "q4_0")]
    finally:
        session.close()
    assert [cell.message for cell in cells] == [None, None]
    assert all(cell.quality is not None for cell in cells)
    assert (max(counts) == 1) is shared


def device(name: str, *, gpu: bool = True) -> Device:
    return Device(name=name, description="H200", gpu=gpu, free=0, total=0)


TWO = Library(
    path="", bindings="", python="", llama_version=None, ggml_version=None, ggml_commit=None,
    system_info=None, files=(), hash="", types={},
    devices=(device("CUDA0"), device("CUDA1"), device("CPU", gpu=False)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("own", "words", "layers", "shared"),
    [
        (TWO.devices, (), -1, True),
        (TWO.devices[:1], ("CUDA0",), -1, True),
        (TWO.devices[:1], ("CUDA1",), -1, False),
        (TWO.devices, ("CPU:0-3",), -1, False),
        (TWO.devices, (), 0, False),
        (TWO.devices[2:], (), -1, False),
    ],
)
def test_when_two_builds_share_a_device(
    own: tuple[Device, ...], words: tuple[str, ...], layers: int, shared: bool
) -> None:
    settings = Settings(reference_devices=words, gpu_layers=layers)
    assert shares_device(settings, msgspec.structs.replace(TWO, devices=own)) is shared
