"""Lines of real devices' logs, and what they make of a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvquant.engine.device_errors import complaint, spoils

RECORDED = Path(__file__).parents[1] / "recorded" / "apple"
MINUS_THREE = """\
graph_compute: ggml_backend_sched_graph_compute_async failed with error -1
process_ubatch: failed to compute graph, compute status: -1
llama_decode: failed to decode, ret = -3
"""
IN_ERROR = (
    "ggml_metal_graph_compute: backend is in error state from a previous command buffer failure - "
    "recreate the backend to recover\n"
)
INTERACTIVITY = (
    "ggml_metal_synchronize: error: command buffer 0 failed with status 5\n"
    "error: Impacting Interactivity "
    "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)\n"
)
NO_PIPELINE = (
    "ggml_metal_library_compile_pipeline: failed to compile pipeline: base = "
    "'kernel_flash_attn_ext_vec_kturbo4_vturbo4_dk64_dv64', name = 'kernel_…_mask=1'\n"
)


def recorded(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("log", "kind", "quoted"),
    [
        (recorded("log_memory.txt"), "memory", "Insufficient Memory (00000008"),
        (recorded("log_timeout.txt"), "failed", "Caused GPU Timeout Error (00000002"),
        (INTERACTIVITY + IN_ERROR + MINUS_THREE, "failed", "Impacting Interactivity (0000000e"),
        (recorded("log_memory.txt") + IN_ERROR + MINUS_THREE, "memory", "Insufficient Memory"),
        (IN_ERROR + MINUS_THREE, "failed", "backend is in error state"),
        (
            recorded("log_not_compiled.txt"),
            "compiler",
            "program_source:7912:9: error: use of undeclared",
        ),
        (recorded("log_compile.txt"), "compiler", "program_source:4231:29: error"),
        (
            "ggml_metal_library_init: failed to build 'fa_q8_0' library: Error Domain=X Code=3\n",
            "compiler",
            "Error Domain=X Code=3",
        ),
        (recorded("log_set_rows.txt"), "operation", "SET_ROWS"),
        (
            "ggml-backend.cpp:941: pre-allocated tensor (cache_v_l0 (reshaped) (view)) in a buffer "
            "(MTL0) that cannot run the operation (SET_ROWS)\n",
            "operation",
            "SET_ROWS",
        ),
        ("ggml_metal_op_encode: error: unsupported op 'FLASH_ATTN_EXT'\n", "operation", "FLASH"),
        (NO_PIPELINE, "kernel", "kernel_flash_attn_ext_vec_kturbo4_vturbo4_dk64_dv64"),
        (
            "ggml_metal_buffer_init: error: failed to allocate buffer, size =  8192.00 MiB\n"
            "graph_reserve: failed to allocate compute buffers\n",
            "memory",
            "8192.00 MiB",
        ),
        ("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate 9 bytes\n", "memory", "9"),
    ],
)
def test_the_cause_is_found_and_quoted(log: str, kind: str, quoted: str) -> None:
    before = recorded("log_m2_device.txt")
    found = complaint(before + log + "sched_reserve: graph nodes = 178\n")
    assert found is not None
    assert found.kind == kind
    assert quoted in found.line
    assert quoted in found.text


@pytest.mark.parametrize(
    "log",
    [
        recorded("log_m2_device.txt"),
        "ggml_metal_library_compile_pipeline: compiling pipeline: base = 'kernel_add'\n",
        "ggml_backend_metal_device_init: error: failed to allocate context\n",
        MINUS_THREE,
        "",
    ],
)
def test_what_names_no_cause_is_no_complaint(log: str) -> None:
    assert complaint(log) is None


def test_a_piece_of_the_log_that_spoils_what_was_computed() -> None:
    assert spoils(recorded("log_timeout.txt"))
    assert spoils(INTERACTIVITY)
    assert spoils(IN_ERROR)
    assert spoils(NO_PIPELINE)
    assert not spoils(recorded("log_m2_device.txt"))
    assert not spoils("ggml_metal_buffer_init: error: failed to allocate buffer, size = 1 MiB\n")
