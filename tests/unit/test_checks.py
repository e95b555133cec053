"""Checks from what libraries really print, and from figures."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.checks.active import check_active
from pytest_kvquant.checks.budgets import identical
from pytest_kvquant.checks.footprint import check_footprint
from pytest_kvquant.checks.measurable import check_measurable
from pytest_kvquant.checks.placement import check_placement, placement
from pytest_kvquant.checks.shapes import check_shapes
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.checks.types import check_types
from pytest_kvquant.matrix import Pair
from pytest_kvquant.quality.effective_types import Explanation
from pytest_kvquant.results.cell import CacheSize, Cell, CensusRecord, LayerRecord, Placement
from pytest_kvquant.results.operations import OperationRecord

CPU = """\
llama_kv_cache:        CPU KV buffer size =     2.00 MiB
llama_kv_cache: size =    2.00 MiB (   512 cells,   4 layers,  1/1 seqs), K (f16):    1.00 MiB
"""
METAL = """\
llama_kv_cache:      Metal KV buffer size =    96.00 MiB
llama_context: graph nodes  = 1234
llama_context: graph splits = 2
"""
SPLIT = """\
llama_kv_cache:      CUDA0 KV buffer size =    48.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =    32.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =    16.00 MiB
llama_context: graph splits = 5 (with bs=512), 3 (with bs=1)
"""


@pytest.mark.parametrize(
    ("line", "splits"),
    [
        ("graph: nodes = 202, splits = 10, input objects = 4, input tensors = 8", 10),
        ("graph (pp bs=512, tg bs=4): nodes = 154 / 154, splits = 41 / 2, input objects = 4", 41),
    ],
)
def test_splits_are_read_from_newer_lines_too(line: str, splits: int) -> None:
    """As llama.cpp of bindings 0.3.36 printed them on CUDA."""
    assert placement(f"sched_reserve: {line}").graph_splits == splits


def test_placement_is_read_from_the_log() -> None:
    assert placement(CPU) == Placement(
        kv_buffers={"CPU": 2.0}, graph_splits=None, caches=(CacheSize(cells=512, layers=4),)
    )
    assert placement(METAL) == Placement(kv_buffers={"Metal": 96.0}, graph_splits=2)
    found = placement(SPLIT)
    assert found == Placement(kv_buffers={"CUDA0": 64.0, "CUDA1": 32.0}, graph_splits=5)


@pytest.mark.parametrize(
    ("log", "gpus", "gpu_layers", "verdict"),
    [
        (CPU, [], -1, "pass"),
        (CPU, ["Metal"], -1, "fail"),
        (CPU, ["Metal"], 0, "pass"),
        (METAL, ["Metal"], -1, "pass"),
        ("", ["Metal"], -1, "inconclusive"),
    ],
)
def test_a_gpu_that_was_asked_for_must_hold_the_cache(
    log: str, gpus: list[str], gpu_layers: int, verdict: str
) -> None:
    check = check_placement(placement(log), gpus, gpu_layers)
    assert check.verdict == verdict
    if verdict == "fail":
        assert "Metal" in check.text


@pytest.mark.parametrize(
    ("log", "gpus", "verdict", "said"),
    [
        (CPU, ["CUDA0"], "pass", "KV cache on CPU 2 MiB, as asked"),
        (SPLIT, ["CUDA0", "CUDA1"], "fail", "although --no-kv-offload was asked for"),
        (CPU, [], "pass", "KV cache on CPU"),
        ("", ["CUDA0"], "inconclusive", "does not say"),
    ],
)
def test_a_cache_that_was_kept_off_the_gpu_has_to_be_off_it(
    log: str, gpus: list[str], verdict: str, said: str
) -> None:
    check = check_placement(placement(log), gpus, -1, kv_offload=False)
    assert check.verdict == verdict
    assert said in check.text


def test_no_check_calls_a_cache_lost_that_was_kept_off_the_gpu() -> None:
    away = OperationRecord(
        path="decode", op="FLASH_ATTN_EXT", types="f16/f16", head=64, device="CPU", nodes=4
    )
    placed = msgspec.structs.replace(placement(CPU), operations=(away,))
    kept = Subject(
        pair=Pair("f16", "f16"), cell=Cell(pair="f16/f16", verdict="pass", placement=placed),
        budgets=identical(), gpus=("CUDA0",), kv_offload=False,
    )  # fmt: skip
    lost = kept._replace(kv_offload=True)
    for name in ("placement", "off_device"):
        declared = registry.find(name)
        assert declared is not None
        found = [declared.decide(one) for one in (kept, lost)]
        assert [one and one.verdict for one in found] == ["pass", "fail"]


def test_the_library_s_own_line_on_a_substitution_is_quoted() -> None:
    log = "noise\nllama_kv_cache: auto-asymmetric: upgrading K from turbo3 to q8_0\nmore noise\n"
    explanation = Explanation("substituted", "K is q8_0 instead of turbo3 on all layers")
    check = check_types(explanation, "q8_0/turbo3", None, log)
    assert check.verdict == "fail"
    assert "upgrading K from turbo3 to q8_0" in check.text
    silent = check_types(explanation, "q8_0/turbo3", None, "noise")
    assert "silent" in silent.text


def test_shapes_are_held_against_f16_and_the_budget() -> None:
    kl = {"several sequences": 2e-4, "parted": 3e-4, "restored": 0.0}
    control = {"several sequences": 0.0, "parted": 4e-4, "restored": 0.0}
    shapes, restore = check_shapes(kl, control, budget=0.002)
    assert shapes.verdict == "pass"
    assert restore.verdict == "pass"
    shapes, _ = check_shapes({**kl, "several sequences": 3e-4}, control, budget=0.002)
    assert shapes.verdict == "fail"
    assert "several sequences" in shapes.text
    assert "parted" not in shapes.text


def test_nan_between_shapes_fails() -> None:
    kl = {"parted": math.nan, "restored": math.nan}
    shapes, restore = check_shapes(kl, {"parted": 1.0, "restored": 1.0}, budget=1.0)
    assert shapes.verdict == "fail"
    assert restore.verdict == "fail"


def test_a_budget_is_ten_times_the_floor_at_least() -> None:
    assert check_measurable(0.01, 1e-3).verdict == "pass"
    assert check_measurable(0.0099, 1e-3).verdict == "fail"
    assert check_measurable(0.0, 1e-3).verdict == "pass"


def test_what_the_package_says_of_its_own_model_is_no_fault_of_a_build() -> None:
    """An f16 that shows what it usually does between batches leaves it open; more is a finding."""
    assert check_measurable(0.0018, 4e-4, packaged=True).verdict == "inconclusive"
    assert check_measurable(0.0018, 4e-4).verdict == "fail"
    assert check_measurable(0.0018, 2e-3, packaged=True).verdict == "fail"


def test_only_quantized_cells_can_be_inactive() -> None:
    pair = Pair("q8_0", "q8_0")
    assert check_active(pair, True, 0.0, 0.0).verdict == "fail"
    assert check_active(pair, True, 1e-9, 0.0).verdict == "pass"
    assert check_active(Pair("f16", "f16"), False, 0.0, 0.0).verdict == "pass"
    # an f16 that is far from itself hides what quantization does; equal bits stay suspicious
    assert check_active(pair, True, 4e-5, 0.46).verdict == "inconclusive"
    assert check_active(pair, True, 0.0, 0.46).verdict == "fail"


def test_rows_that_are_quantized_are_quantized_however_little_it_does() -> None:
    pair = Pair("q8_0", "f16")
    assert check_active(pair, True, 3e-4, 5e-4).verdict == "fail"
    assert check_active(pair, True, 3e-4, 5e-4, rows_agree=True).verdict == "pass"
    assert check_active(pair, True, 0.0, 5e-4, rows_agree=True).verdict == "fail"


def a_census(held: float | None, **fields: Any) -> CensusRecord:
    """Two layers of f16, 1,024 bytes a token each by the header."""
    layer = LayerRecord(k="f16", v="f16", k_row=512, v_row=512)
    return CensusRecord(
        **{
            "layers": (layer, layer), "bytes_per_token": held, "expected_bytes_per_token": 2048,
            "compression_expected": 1.0, "kind": "agree", "text": "what was read", **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("held", "floor", "verdict"),
    [
        (2048.0, None, "pass"),
        (2049.0, None, "fail"),
        (2048.0, 1.5, "fail"),
        (1024.0, 2.0, "pass"),
        (3000.0, 0.5, "pass"),
        (None, None, "inconclusive"),
    ],
)
def test_a_footprint_is_held_against_its_floor(
    held: float | None, floor: float | None, verdict: str
) -> None:
    check = check_footprint(a_census(held), None, floor)
    assert check.verdict == verdict
    assert (check.figure is None) is (verdict == "inconclusive")


def test_a_state_that_is_not_understood_proves_nothing_about_memory() -> None:
    grown = a_census(2072.0, understood=False, layers=(), kind="unreadable")
    assert check_footprint(grown, None, None).verdict == "inconclusive"


def allocated(mib: float) -> Placement:
    caches = (CacheSize(cells=1024, layers=2),)
    return Placement(kv_buffers={"CPU": mib}, graph_splits=None, caches=caches)


@pytest.mark.parametrize(
    ("placed", "verdict", "text"),
    [
        (None, "pass", "the library does not say what it allocates"),
        (placement(""), "pass", "the library does not say what it allocates"),
        (placement(METAL), "pass", "the library allocates 96 MiB"),
        (
            Placement(
                kv_buffers={"CPU": 1.5}, graph_splits=None,
                caches=(CacheSize(cells=1024, layers=1), CacheSize(cells=512, layers=1)),
            ),
            "pass",
            "the library allocates 1.5 MiB for 1,024 + 512 cells, as their rows take",
        ),
        (
            allocated(2.05), "pass",
            "the library allocates 2.05 MiB for 1,024 cells, 0.05 MiB more than their rows take",
        ),
        (
            allocated(2.13), "pass",
            "the library allocates 2.13 MiB for 1,024 cells, 0.13 MiB more than their rows take",
        ),
        (
            allocated(2.5), "fail",
            "the library allocates 2.5 MiB for 1,024 cells, 0.50 MiB more than their rows take",
        ),
        (
            allocated(1.5), "fail",
            "the library allocates 1.5 MiB for 1,024 cells, 0.50 MiB less than their rows take",
        ),
    ],
)  # fmt: skip
def test_what_is_allocated_stands_beside_what_the_rows_take(
    placed: Placement | None, verdict: str, text: str
) -> None:
    """A quarter more than the rows take, or less than they do, is a fault."""
    check = check_footprint(a_census(2048.0), placed, None)
    assert check.verdict == verdict
    assert check.text.endswith(text)


def test_cells_of_all_streams_are_counted() -> None:
    line = "llama_kv_cache: size =    6.50 MiB (   256 cells,   4 layers, 16/16 seqs), K (q8_0)"
    assert placement(line).caches == (CacheSize(cells=4096, layers=4),)
