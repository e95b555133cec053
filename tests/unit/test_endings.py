"""How a worker's end is told: the cause first, without chatter."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pytest_kvquant.checks.placement import check_placement
from pytest_kvquant.engine.parent import endings
from pytest_kvquant.errors import CellCrashed, CellOutOfMemory, CellUnsupported
from pytest_kvquant.results.cell import Placement
from pytest_kvquant.results.library import Device, Library

RECORDED = Path(__file__).parents[1] / "recorded" / "apple"
MEMORY = (RECORDED / "log_memory.txt").read_text(encoding="utf-8")
PIPELINES = "".join(
    f"ggml_metal_library_compile_pipeline: compiling pipeline: base = 'kernel_{n}', name = 'k{n}'\n"
    f"ggml_metal_library_compile_pipeline: loaded kernel_{n} 0x1 | th_max = 1024\n"
    for n in range(40)
)
MINUS_THREE = "llama_decode: failed to decode, ret = -3\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "on macOS also jetsam or an invalid code signature"),
        (signal.SIGTRAP, "a check of the system's own libraries"),
        (signal.SIGSEGV, "invalid memory access"),
    ],
)
def test_signals_have_a_meaning(number: int, words: str) -> None:
    assert words in endings.death_in_words(-number)


def test_the_line_that_names_the_cause_is_quoted_however_early() -> None:
    log = MEMORY + "".join(f"slot {n}: a line\n" for n in range(40)) + MINUS_THREE
    lines = endings.quoted(log).splitlines()
    assert lines[0].startswith("Insufficient Memory")
    assert lines[-1] == MINUS_THREE.strip()
    assert len(lines) == endings.LINES


def test_pipelines_do_not_crowd_what_is_quoted() -> None:
    assert endings.quoted("the cause\n" + PIPELINES) == "the cause"


def test_a_code_that_hides_its_cause_is_told_with_it() -> None:
    found = endings.refused("llama_decode: code -3", MEMORY + MINUS_THREE, kind="DecodeFailed")
    assert isinstance(found, CellOutOfMemory)
    assert "Insufficient Memory (00000008" in str(found)
    plain = endings.refused("llama_decode: code -3", MINUS_THREE, kind="DecodeFailed")
    assert isinstance(plain, CellCrashed)


def test_an_abort_without_a_kernel_is_unsupported() -> None:
    log = (RECORDED / "log_set_rows.txt").read_text(encoding="utf-8")
    found = endings.died(-signal.SIGABRT, log)
    assert isinstance(found, CellUnsupported)
    assert str(found).startswith("Vulkan0 has no SET_ROWS for the type of cache_k_l3. The worker")


def test_an_abort_is_told_in_its_own_words() -> None:
    log = "sched_reserve: took 4 ms\n/home/me/llama/ggml/src/ggml-cuda/fattn.cu:348: fatal error\n"
    found = endings.died(-signal.SIGABRT, log)
    assert isinstance(found, CellCrashed)
    assert str(found).startswith("It stopped at fattn.cu:348: fatal error. The worker was killed")


def test_the_cpu_is_asked_for_by_its_name() -> None:
    """Without layers on it, a GPU still takes products of 32 rows and more."""
    lost = Placement(kv_buffers={"CPU": 2.0}, graph_splits=1)
    assert "--kv-devices CPU asks for the CPU" in check_placement(lost, ["MTL0"], -1).text


def test_accelerate_is_no_device_to_measure_on() -> None:
    """A GGML_METAL=OFF build of a Mac lists BLAS first."""
    blas = Device(name="BLAS", description="Accelerate", gpu=False, free=0, total=0,
                  accelerator=True)  # fmt: skip
    cpu = Device(name="CPU", description="Apple M5 Max", gpu=False, free=1, total=1)
    library = Library(
        path="", bindings="", python="", llama_version=None, ggml_version=None, ggml_commit=None,
        system_info=None, files=(), hash="", devices=(blas, cpu), types={},
    )  # fmt: skip
    assert (library.device, library.chip) == ("CPU", "Apple M5 Max")
