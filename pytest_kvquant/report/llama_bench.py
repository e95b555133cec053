"""Speeds as ``llama-bench -o json`` writes them: one list, an entry per test.

llama.cpp's ``scripts/compare-llama-bench.py`` joins two builds on everything that could make them
differ. What was set stands as ``llama-bench`` writes it, what was left alone as it says it without
options. Its names
have changed: one version says ``use_mmap``, a later one ``load_mode``. Both are here, because
either version of the script drops what it does not know and insists on what it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from pytest_kvquant.results.speed import SpeedCell, SpeedTest

MEASURED = (
    "build_commit", "cpu_info", "gpu_info", "backends", "model_filename", "model_type",
    "model_size", "model_n_params", "n_batch", "n_ubatch", "n_threads", "type_k", "type_v",
    "n_gpu_layers", "flash_attn", "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns",
    "stddev_ns", "avg_ts", "stddev_ts", "samples_ns", "samples_ts",
)  # fmt: skip
"""Fields of a test that bear ``llama-bench``'s names."""

LEFT_ALONE: dict[str, str | int | bool] = {
    "build_number": 0,
    "cpu_mask": "0x0",
    "cpu_strict": False,
    "poll": 50,
    "n_cpu_moe": 0,
    "split_mode": "layer",
    "main_gpu": 0,
    "no_kv_offload": False,
    "devices": "auto",
    "tensor_split": "0.00",
    "tensor_buft_overrides": "none",
    "use_mmap": True,
    "use_direct_io": False,
    "load_mode": "auto",
    "lazy_mode": "auto",
    "embeddings": False,
    "no_op_offload": 0,
    "no_host": False,
    "repack": True,
    "fit_target": 0,
    "fit_min_ctx": 0,
}
"""``llama-bench``'s defaults; the build number is the one of a build that does not know its own."""


EXPERTS = "\\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
"""What ``--cpu-moe`` stands for: ``llama-bench`` has it as an override of tensors only."""


def set_up(setup: Mapping[str, str]) -> Iterator[tuple[str, str | int | bool]]:
    """Fields of ``llama-bench`` for options that were set.

    Args:
        setup: options of llama.cpp by name, as the result has them.
    """
    if "split-mode" in setup:
        yield "split_mode", setup["split-mode"]
    for name, field in (("main-gpu", "main_gpu"), ("n-cpu-moe", "n_cpu_moe")):
        if name in setup:
            yield field, int(setup[name])
    if "kv-offload" in setup:
        yield "no_kv_offload", setup["kv-offload"] == "false"
    if "op-offload" in setup:
        yield "no_op_offload", int(setup["op-offload"] == "false")
    if shares := setup.get("tensor-split"):
        numbers = [float(share) for share in shares.split(",")]
        while len(numbers) > 1 and numbers[-1] == 0:
            numbers.pop()
        yield "tensor_split", "/".join(f"{number:.2f}" for number in numbers)
    overrides = [one for one in setup.get("override-tensor", "").split(",") if one]
    if setup.get("cpu-moe") == "true":
        overrides.append(EXPERTS)
    if overrides:
        yield "tensor_buft_overrides", ";".join(overrides)
    if "mmap" in setup or "mlock" in setup:
        mapped, locked = setup.get("mmap") != "false", setup.get("mlock") == "true"
        yield "use_mmap", mapped
        yield "load_mode", "+".join(["mmap"] * mapped + ["mlock"] * locked) or "none"


def entry(test: SpeedTest, setup: Mapping[str, str]) -> dict[str, object]:
    """One test as an entry of the list; a commit is named as ``git rev-parse --short`` does."""
    measured = {name: getattr(test, name) for name in MEASURED}
    commit = test.build_commit.removesuffix("-dirty") or "unknown"
    return {**LEFT_ALONE, **dict(set_up(setup)), **measured, "build_commit": commit}


def as_llama_bench(cells: Iterable[SpeedCell], setup: Mapping[str, str]) -> str:
    """All tests of all pairs, as JSON text.

    Args:
        setup: options of llama.cpp that were set.
    """
    entries = [entry(test, setup) for cell in cells for test in cell.tests if not test.name]
    return msgspec.json.format(msgspec.json.encode(entries), indent=2).decode() + "\n"
