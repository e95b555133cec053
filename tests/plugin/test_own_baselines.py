"""The project's own baselines: the embedded model, on whatever x86_64 CPU this runs."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from support.outer import pytest_in

BASELINES = Path(__file__).resolve().parents[2] / "baselines"


@pytest.mark.parametrize(
    ("chosen", "pairs"),
    [
        ("--kv-pairs=q8_0/q4_0", 2),
        pytest.param("--kv-types=f16,q8_0,q5_1,q4_0", 16, marks=pytest.mark.slow),
    ],
)
def test_the_embedded_model_has_not_drifted(chosen: str, pairs: int, tmp_path: Path) -> None:
    """Half of the chunks that were accepted: enough to see a drift of 5 %."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"baselines are of x86_64, and this is {platform.machine()}")
    ran = pytest_in(
        tmp_path, "--kv-matrix", "-k", "test_baseline", f"--kv-baselines={BASELINES}",
        "--kv-chunks=4", "--kv-speed=off", "--kv-decode=0", "--kv-trajectory=0", "--kv-probe=off",
        "--kv-coverage=off", "--kv-recall=0", chosen, "-rs",
    )  # fmt: skip
    assert ran.code == 0, ran.text
    assert ran.counts.strip("= ").startswith(f"{pairs} passed"), ran.text
