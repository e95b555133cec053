"""The probe of cache contents: what it costs a cell, and how much memory it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_kvquant.results.result import Result


@pytest.mark.timeout(1200)
def test_probe_over_quality(benchmark: Any, run: Callable[..., Result]) -> None:
    """The probe over the rest of a cell's time, on the embedded model: at most 10 %."""
    options = ("--kv-speed", "off", "--kv-probe", "always")
    result = benchmark.pedantic(run, options, rounds=1)
    shares = [
        cell.diagnosis.seconds / (cell.timing.prefill + cell.timing.paths)
        for cell in result.cells
        if cell.diagnosis is not None and cell.timing is not None and cell.verdict != "fail"
    ]
    assert shares
    mean = sum(shares) / len(shares)
    benchmark.extra_info |= {"probe over quality, mean": mean, "most": max(shares)}
    print(f"\nprobe: {mean:.1%} of the quality of a cell, at most {max(shares):.1%} (target 10 %)")
    suspects = [cell.pair for cell in result.cells if cell.diagnosis and cell.diagnosis.suspects]
    print(f"suspicions among {len(shares)} cells of the default matrix: {len(suspects)} (target 0)")
