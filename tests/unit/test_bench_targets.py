"""A target of the benchmarks is said once."""

from __future__ import annotations

import re
from pathlib import Path

import bench_quality
import table


def test_time_around_decoding_has_one_target() -> None:
    assert table.OVER_DECODE == 1.03
    text = Path(bench_quality.__file__).read_text(encoding="utf-8")
    (printed,) = re.findall(r"ratio \{.*?\} \(target (.*?)\)", text)
    assert printed == "{OVER_DECODE:g}"
    assert bench_quality.OVER_DECODE is table.OVER_DECODE
