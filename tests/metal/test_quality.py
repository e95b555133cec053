"""Quality on a simulated Mac: who computes, and what a device's failures make of a cell."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from metal.conftest import Mac
from metal.tables import FORK
from pytest_kvquant.config.overrides import Expect
from pytest_kvquant.data import EMBEDDED_MODEL
from pytest_kvquant.engine.parent.engine import BatchShape, Engine
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.errors import LibraryError
from pytest_kvquant.machine.environment import scrub
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.cell import Cell, Check

MEMORY = "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
INTERACTIVITY = (
    "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)"
)
TIMEOUT = "Caused GPU Timeout Error (00000002:kIOAccelCommandBufferCallbackErrorTimeout)"
COMPILER = "program_source:7912:9: error: use of undeclared identifier 'norm2'"


def check(cell: Cell, name: str) -> Check:
    return next(one for one in cell.checks if one.name == name)


def test_a_healthy_device_computes_all_of_a_pair_of_one_type(mac: Mac) -> None:
    cell = mac.cells("f16/f16 q8_0/q8_0")["q8_0/q8_0"]
    assert cell.verdict in ("pass", "inconclusive")
    assert cell.placement is not None
    assert cell.placement.kv_buffers.keys() == {"MTL0"}
    assert cell.placement.graph_splits == 2
    found = check(cell, "off_device")
    assert (found.verdict, found.text) == (
        "pass",
        "attention and writes of the cache run on MTL0",
    )


@pytest.mark.parametrize(("pair", "on_cpu"), [("q4_0/q4_0", False), ("q4_0/f16", True)])
def test_the_healthy_cell_rounds_as_the_device_does(mac: Mac, pair: str, on_cpu: bool) -> None:
    """The scheduler's copy of a rotation has another name; only a CPU's kernel rounds queries."""
    engine = Engine(
        python=sys.executable, environment=scrub(dict(os.environ), mac.variables()), timeout=120
    )
    with Worker(engine) as worker:
        worker.library(None)
        worker.model(str(EMBEDDED_MODEL), gpu_layers=99)
        shape = BatchShape(ctx=256, scored=128, sequences=1, batch=256, ubatch=256, threads=2)
        keys = [one for one in worker.stored(Pair.parse(pair), shape) if one.side == "K"]
    assert {one.rotation for one in keys} == {128}
    assert {one.on_cpu for one in keys} == {on_cpu}


@pytest.mark.parametrize("declared", [False, True])
def test_attention_on_the_cpu_is_off_device(mac: Mac, declared: bool) -> None:
    """The cache is on the GPU, and placement alone would pass."""
    expect = {} if declared else {"f16/q8_0": Expect(off_device=False)}
    cell = mac.cells("f16/f16 f16/q8_0", expect=expect)["f16/q8_0"]
    assert check(cell, "placement").verdict == "pass"
    assert cell.placement is not None
    assert cell.placement.graph_splits == 10
    text = (
        "FLASH_ATTN_EXT of f16/q8_0 at head size 128 runs on the CPU in prefill and decode: "
        "MTL0 has none for it"
    )
    if declared:  # by the package, for the embedded model on any MTL device
        assert cell.verdict in ("pass", "inconclusive")
        assert check(cell, "off_device").text == f"{text}, as [expect] says"
    else:
        assert cell.verdict == "off-device"
        assert check(cell, "off_device").text == text


def test_a_declared_pair_that_runs_on_the_device_fails(mac: Mac) -> None:
    cell = mac.cells("f16/f16 q8_0/q8_0", expect={"q8_0/q8_0": Expect(off_device="MTL*")})
    assert cell["q8_0/q8_0"].verdict == "off-device"
    assert "remove the entry" in check(cell["q8_0/q8_0"], "off_device").text


def test_all_pairs_of_the_fork_s_table(mac: Mac) -> None:
    """The table itself decides: with the fork's, nothing changes for pairs of upstream's types."""
    cells = mac.cells("f16/f16 q8_0/q4_0 q4_0/q4_0", table=FORK)
    assert check(cells["q8_0/q4_0"], "off_device").text.endswith("as [expect] says")
    assert check(cells["q4_0/q4_0"], "off_device").verdict == "pass"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [(MEMORY, "out-of-memory"), (INTERACTIVITY, "crashed"), (TIMEOUT, "crashed")],
)
def test_a_command_buffer_that_fails_silently(mac: Mac, text: str, verdict: str) -> None:
    """``llama_decode`` has returned 0; nothing of it may count."""
    cell = mac.cells(
        "f16/f16 q8_0/q8_0",
        faults={"FAIL": 1, "FAIL_CACHE": "q8_0", "FAIL_TOKENS": 512, "FAIL_TEXT": text},
    )["q8_0/q8_0"]
    assert cell.verdict == verdict
    assert cell.message is not None
    assert text in cell.message
    assert cell.quality is None
    assert not cell.gates


@pytest.mark.parametrize(("nth", "tokens"), [(1, 512), (3, 1)])
def test_garbage_of_f16_never_enters_the_store(mac: Mac, nth: int, tokens: int) -> None:
    """Whichever batch of f16 fails: the next run computes it again, and rightly."""
    once = mac.folder / "failed once"
    faults = {"FAIL": nth, "FAIL_CACHE": "f16", "FAIL_TOKENS": tokens, "FAIL_ONCE": once}
    first = mac.measure("f16/f16 q8_0/q8_0", faults=faults)
    assert any(cell.verdict == "out-of-memory" for cell in first.cells)
    assert once.exists()
    second = mac.cells("f16/f16 q8_0/q8_0", faults=faults)
    assert second["f16/f16"].verdict == "pass"
    assert second["q8_0/q8_0"].quality is not None
    healthy = Mac(mac.library, mac.folder / "healthy").cells("f16/f16 q8_0/q8_0")
    assert second["q8_0/q8_0"].digests == healthy["q8_0/q8_0"].digests
    assert second["q8_0/q8_0"].per_chunk == healthy["q8_0/q8_0"].per_chunk


def test_shaders_that_do_not_compile(mac: Mac) -> None:
    """Not out of memory, although that line of ggml-metal says "failed to allocate context"."""
    with pytest.raises(LibraryError, match="kernels do not compile") as refused:
        mac.session("f16/f16", faults={"COMPILE": COMPILER})
    assert COMPILER in str(refused.value)
    assert "memory" not in str(refused.value)


def test_a_type_that_the_device_cannot_write(mac: Mac) -> None:
    cells = mac.cells("f16/f16 q8_0/iq4_xs f16/q4_0", faults={"SET_ROWS": "f16 q8_0"})
    cell = cells["f16/q4_0"]
    assert cell.verdict == "unsupported"
    assert cell.message is not None
    assert "MTL0 has no SET_ROWS for the type of cache_v_l0" in cell.message


def test_a_kernel_that_is_promised_and_missing(mac: Mac) -> None:
    """supports_op says yes, the pipeline is null, the encoder reads through it."""
    cell = mac.cells("f16/f16 q8_0/q8_0", faults={"PIPELINES": "q8_0/q8_0@128"})["q8_0/q8_0"]
    assert cell.verdict == "unsupported"
    assert cell.message is not None
    assert "the device has no kernel kernel_flash_attn_ext_vec_kq8_0_vq8_0_dk128_dv128" in (
        cell.message.replace("The device", "the device")
    )
    assert "SIGSEGV" in cell.message


def test_a_device_without_memory(mac: Mac) -> None:
    """In Metal's words, at the first allocation that fails."""
    cell = mac.cells("f16/f16", faults={"LIMIT": 20})["f16/f16"]
    assert cell.verdict == "out-of-memory"
    assert cell.message is not None
    assert "failed to allocate buffer" in cell.message


def test_more_than_the_working_set_fails_when_it_computes(mac: Mac) -> None:
    cell = mac.cells("f16/f16", faults={"WORKING_SET": 20})["f16/f16"]
    assert cell.verdict == "out-of-memory"
    assert cell.message is not None
    assert MEMORY in cell.message


def test_several_devices(mac: Mac) -> None:
    result = mac.measure("f16/f16 q8_0/q8_0", faults={"DEVICES": 2})
    names = [device.name for device in result.environment.library.devices]
    assert names == ["CPU", "MTL0", "MTL1", "BLAS"]
    cell = result.cells[1]
    assert cell.placement is not None
    assert set(cell.placement.kv_buffers) == {"MTL0", "MTL1"}
    assert check(cell, "off_device").verdict == "pass"


def test_memory_that_wraps_around_below_zero_is_none(mac: Mac) -> None:
    session = mac.session("f16/f16", faults={"WRAPS": 1, "WORKING_SET": 100})
    assert session.library.gpus[0].free <= session.library.gpus[0].total


def test_debug_layers_are_left_out_and_told(mac: Mac) -> None:
    shell = {"MTL_SHADER_VALIDATION": "1", "METAL_DEVICE_WRAPPER_TYPE": "1"}
    result = mac.measure("f16/f16", shell=shell)
    assert result.environment.variables_dropped.items() >= shell.items()


def test_the_reference_is_that_of_the_device(mac: Mac, tmp_path: Path) -> None:
    session = mac.session("f16/f16")
    assert session.library.device == "MTL0"
    assert session.measure(REFERENCE).verdict == "pass"
