"""Checks from what libraries really print, and from figures."""

from __future__ import annotations

import math

import pytest

from pytest_kvquant import checks
from pytest_kvquant.geometry import Explanation
from pytest_kvquant.matrix import Pair
from pytest_kvquant.report.result import Placement

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
    assert checks.placement(f"sched_reserve: {line}").graph_splits == splits


def test_placement_is_read_from_the_log() -> None:
    assert checks.placement(CPU) == Placement(kv_buffers={"CPU": 2.0}, graph_splits=None)
    assert checks.placement(METAL) == Placement(kv_buffers={"Metal": 96.0}, graph_splits=2)
    found = checks.placement(SPLIT)
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
    check = checks.check_placement(checks.placement(log), gpus, gpu_layers)
    assert check.verdict == verdict
    if verdict == "fail":
        assert "Metal" in check.text


def test_the_library_s_own_line_on_a_substitution_is_quoted() -> None:
    log = "noise\nllama_kv_cache: auto-asymmetric: upgrading K from turbo3 to q8_0\nmore noise\n"
    explanation = Explanation("substituted", "K is q8_0 instead of turbo3 on all layers")
    check = checks.check_types(explanation, "q8_0/turbo3", None, log)
    assert check.verdict == "fail"
    assert "upgrading K from turbo3 to q8_0" in check.text
    silent = checks.check_types(explanation, "q8_0/turbo3", None, "noise")
    assert "silent" in silent.text


def test_shapes_are_held_against_f16_and_the_budget() -> None:
    kl = {"several sequences": 2e-4, "parted": 3e-4, "restored": 0.0}
    control = {"several sequences": 0.0, "parted": 4e-4, "restored": 0.0}
    shapes, restore = checks.check_shapes(kl, control, budget=0.002)
    assert shapes.verdict == "pass"
    assert restore.verdict == "pass"
    shapes, _ = checks.check_shapes({**kl, "several sequences": 3e-4}, control, budget=0.002)
    assert shapes.verdict == "fail"
    assert "several sequences" in shapes.text
    assert "parted" not in shapes.text


def test_nan_between_shapes_fails() -> None:
    kl = {"parted": math.nan, "restored": math.nan}
    shapes, restore = checks.check_shapes(kl, {"parted": 1.0, "restored": 1.0}, budget=1.0)
    assert shapes.verdict == "fail"
    assert restore.verdict == "fail"


def test_a_budget_is_ten_times_the_floor_at_least() -> None:
    assert checks.check_measurable(0.01, 1e-3).verdict == "pass"
    assert checks.check_measurable(0.0099, 1e-3).verdict == "fail"
    assert checks.check_measurable(0.0, 1e-3).verdict == "pass"


def test_only_quantized_cells_can_be_inactive() -> None:
    pair = Pair("q8_0", "q8_0")
    assert checks.check_active(pair, True, 0.0, 0.0).verdict == "fail"
    assert checks.check_active(pair, True, 1e-9, 0.0).verdict == "pass"
    assert checks.check_active(Pair("f16", "f16"), False, 0.0, 0.0).verdict == "pass"
