"""Words of ``--kv-devices``: what they name, and what is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvquant.baselines.quality import hardware_class
from pytest_kvquant.config.setup import parse_words
from pytest_kvquant.engine.parent.devices import in_use, restrict, split_over
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.machine.devices import DeviceChoice, parse, share_out
from pytest_kvquant.machine.hardware import describe
from pytest_kvquant.results.library import Device, Library


def test_cores_are_told_from_a_name() -> None:
    assert parse("CUDA0") == DeviceChoice("CUDA0")
    assert parse("RPC[host:50052]") == DeviceChoice("RPC[host:50052]")
    assert parse("CPU:2") == DeviceChoice("CPU", frozenset({2}))
    assert parse("CPU:2-4") == DeviceChoice("CPU", frozenset({2, 3, 4}))


@pytest.mark.parametrize("word", ["CPU:", "CPU:1-0", "CPU:a", "CPU:-1", "CPU:0-", "CPU:0-1-2"])
def test_other_cores_are_refused(word: str) -> None:
    with pytest.raises(SettingsError, match="cores are one number or a range"):
        parse(word)


@given(st.integers(1, 6), st.integers(1, 6))
def test_every_process_has_a_device(devices: int, workers: int) -> None:
    words = [f"CUDA{number}" for number in range(devices)]
    if workers <= devices:
        assert share_out(words, workers) == words[:workers]
    else:
        with pytest.raises(SettingsError, match=f"-n {workers} needs {workers} devices"):
            share_out(words, workers)


@pytest.mark.parametrize(
    "words", [("CUDA0", "CUDA0"), ("CPU", "CPU:1"), ("CPU:0-3", "CPU:3-5"), ("CPU:1", "CPU:1")]
)
def test_two_processes_never_share_one(words: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match="share a device"):
        share_out(words, 2)
    assert share_out(words, 1) == [words[0]]


def device(name: str, description: str, *, gpu: bool = True) -> Device:
    return Device(name=name, description=description, gpu=gpu, free=1, total=1)


MACHINE = Library(
    path="libllama.so",
    bindings="0.3.36",
    python="3.11",
    llama_version=None,
    ggml_version=None,
    ggml_commit=None,
    system_info=None,
    files=(),
    hash="0",
    types={},
    devices=(
        device("CUDA0", "H200"),
        device("CUDA1", "H200"),
        device("CUDA2", "T4"),
        device("CPU", "Xeon", gpu=False),
    ),
)


def test_only_the_first_is_used() -> None:
    found = restrict(MACHINE, ["CUDA1", "CUDA0"])
    assert [one.name for one in found.devices] == ["CUDA1"]
    assert (found.device, found.chip) == ("CUDA1", "H200")
    assert not restrict(MACHINE, ["CPU:0-3"]).devices[0].gpu


@pytest.mark.parametrize(
    ("words", "names", "chip"),
    [
        ("", "CUDA0 and CUDA1 and CUDA2", "2 x H200 + T4"),
        ("-sm none", "CUDA0", "H200"),
        ("-sm none -mg 2", "CUDA2", "T4"),
        ("-sm none -mg 7", "CUDA0 and CUDA1 and CUDA2", "2 x H200 + T4"),
        ("-ts 1,1", "CUDA0 and CUDA1", "2 x H200"),
        ("-sm row -ts 0,1,0", "CUDA1", "H200"),
    ],
)
def test_all_devices_that_hold_the_model_are_named(words: str, names: str, chip: str) -> None:
    found = split_over(MACHINE, parse_words(words))
    assert (found.computing, found.chip) == (names, chip)
    assert found.devices[-1] == MACHINE.devices[-1]


def test_without_a_gpu_the_processor_computes() -> None:
    found = split_over(restrict(MACHINE, ["CPU"]), parse_words("-ts 1,1"))
    assert (found.computing, found.chip) == ("CPU", "Xeon")


def test_a_model_over_two_gpus_is_not_taken_for_one_on_one() -> None:
    """Folder of baselines, floors of speed, reference and journal."""
    one, two = (split_over(MACHINE, parse_words(words)) for words in ("-sm none", "-ts 1,1"))
    folders = [hardware_class(library, "x86_64", -1) for library in (one, two)]
    assert folders == ["h200", "2-x-h200"]
    prints = {describe("Xeon", [library.chip]).fingerprint for library in (one, two)}
    assert len(prints) == 2


def test_devices_that_are_not_there_or_not_alike_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"has no such device\. It has: CUDA0, CUDA1"):
        restrict(MACHINE, ["CUDA0", "Metal"])
    with pytest.raises(SettingsError, match="CUDA0 is 'H200' and CUDA2 is 'T4'"):
        restrict(MACHINE, ["CUDA0", "CUDA2"])


@pytest.mark.parametrize("file", ["libggml-cuda.so.0.25.3", "libggml-metal.dylib"])
def test_a_gpu_build_without_a_gpu_is_not_taken_for_one_of_the_cpu(file: str) -> None:
    blind = msgspec.structs.replace(
        MACHINE, files=("libllama.so", file), devices=(device("CPU", "Xeon", gpu=False),)
    )
    with pytest.raises(SettingsError, match=f"has {file} and finds no device"):
        in_use(blind, (), -1)
    assert in_use(blind, (), 0) == blind
    assert in_use(blind, ("CPU",), -1) == blind
    assert in_use(msgspec.structs.replace(MACHINE, files=(file,)), (), -1).device == "CUDA0"
