"""The road of quality: what everything around ``llama_decode`` costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from table import OVER_DECODE

from pytest_kvquant.numerics.kernels import compare_rows

VOCABULARY = 248_320
ROWS = 128


def test_overhead_around_llama_decode(benchmark: Any, run: Any, reference_model: list[str]) -> None:
    """Wall time of the quality matrix over the time inside ``llama_decode``: at most the target."""
    options = (*reference_model, "--kv-decode", "0", "--kv-trajectory", "0", *_quality_only())
    result = benchmark.pedantic(run, options, rounds=1)
    benchmark.extra_info["wall over llama_decode"] = result.seconds / result.decode_seconds
    print(
        f"\nwhole run: {result.seconds:.1f} s, of it llama_decode {result.decode_seconds:.1f} s: "
        f"ratio {result.seconds / result.decode_seconds:.3f} (target {OVER_DECODE:g})"
    )


def test_other_paths_over_prefill_quality(benchmark: Any, run: Any) -> None:
    """Census, decode path, trajectory and shapes over the prefill quality: at most 60 %."""
    result = benchmark.pedantic(run, _quality_only(), rounds=1)
    timings = [cell.timing for cell in result.cells if cell.timing is not None]
    extra = sum(timing.paths for timing in timings) / sum(timing.prefill for timing in timings)
    benchmark.extra_info["other paths over prefill quality"] = extra
    print(f"\nother paths cost {extra:.0%} over the prefill quality (target 60 %)")


@pytest.fixture(scope="module")
def logits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Two blocks of logits at a large vocabulary, and targets."""
    random = np.random.Generator(np.random.PCG64(0))
    reference = (3 * random.standard_normal((ROWS, VOCABULARY))).astype(np.float32)
    noise = random.standard_normal(reference.shape).astype(np.float32)
    targets = random.integers(0, VOCABULARY, ROWS).astype(np.int32)
    return reference, reference + np.float32(0.05) * noise, targets


@pytest.mark.benchmark(group=f"comparison of {ROWS} rows of {VOCABULARY:,} logits")
def test_comparison(benchmark: Any, logits: Any) -> None:
    """The fused comparison, against :func:`test_comparison_numpy`: at least 5 times as fast."""
    compare_rows(*logits)
    fused = benchmark.pedantic(compare_rows, logits, rounds=5)
    start = time.perf_counter()
    plain = _numpy(*logits)
    numpy_seconds = time.perf_counter() - start
    for name, values in plain.items():
        assert np.allclose(getattr(fused, name), values, rtol=1e-6, atol=1e-9), name
    ratio = numpy_seconds / benchmark.stats.stats.median
    benchmark.extra_info["times as fast as NumPy"] = ratio
    print(f"\ncomparison: {ratio:.1f} times as fast as NumPy (target 5), figures equal to 1e-6")


def test_memory_of_the_parent(benchmark: Any, tmp_path: Path) -> None:
    """Peak memory of the parent does not grow with chunks or cells."""

    def peak(*options: str) -> float:
        script = (
            "import resource, sys, pytest; pytest.main(sys.argv[1:]); "
            "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        store = ["--kv-store", str(tmp_path / "store")]
        command = [sys.executable, "-c", script, "-q", "--kv-matrix", *store, *options]
        done = subprocess.run(
            command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=True
        )
        unit = 1 if sys.platform == "darwin" else 1024
        return float(done.stdout.split("PEAK")[1]) * unit / 1e6

    small = ["--kv-chunks", "4", "--kv-types", "f16,q8_0", *_quality_only()]
    few = benchmark.pedantic(peak, small, rounds=1)
    chunks = peak("--kv-chunks", "32", "--kv-types", "f16,q8_0", *_quality_only())
    cells = peak("--kv-chunks", "4", "--kv-types", "f16,q8_0,q5_1,q4_0", *_quality_only())
    benchmark.extra_info |= {"MB": few, "MB at 8 × chunks": chunks, "MB at 4 × cells": cells}
    print(f"\nparent: {few:.0f} MB; 8 × chunks {chunks:.0f} MB; 4 × cells {cells:.0f} MB")


def _quality_only() -> list[str]:
    """Options that leave out what other benchmarks measure."""
    return ["--kv-speed", "off", "--kv-probe", "off", "--kv-coverage", "off"]


def _numpy(reference: Any, cell: Any, targets: Any) -> dict[str, Any]:
    """The straightforward version, in float64."""

    def log_softmax(logits: Any) -> Any:
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    p, q = log_softmax(reference), log_softmax(cell)
    each = np.arange(len(targets))
    best = np.partition(reference, -2, axis=1)
    return {
        "kl": (np.exp(p) * (p - q)).sum(axis=1),
        "nll_reference": -p[each, targets],
        "nll_cell": -q[each, targets],
        "delta_p": np.exp(q[each, targets]) - np.exp(p[each, targets]),
        "margin": best[:, -1].astype(np.float64) - best[:, -2],
        "top_reference": reference.argmax(axis=1),
        "top_cell": cell.argmax(axis=1),
    }
