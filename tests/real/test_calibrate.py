"""A gate for a model of one's own: calibrated, a healthy run is green, one at twice the KL is red.

``make real`` fetches the model; skipped where it is not.
"""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from faults import weights
from real.test_real_models import FOLDER, FORK, SHIFTS
from support.outer import Outcome, pytest_in

from pytest_kvquant.cli.main import main
from pytest_kvquant.engine.child.main import HOOK
from tools.real_models import SMOLLM2

MODEL = FOLDER / "models" / SMOLLM2.file
NOISE = Path(__file__).parents[1] / "faults" / "hook.py"
PILOT = 0.08
"""Noise on K and V, as a share of their own; plainly seen beside q8_0."""
pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not MODEL.is_file(), reason=f"{MODEL} is not there; `make real` fetches it"),
]


class Gate:
    """The file that calibrate wrote, and runs with it."""

    def __init__(self, folder: Path, build: tuple[str, ...]) -> None:
        self.folder = folder
        self.words = (f"--kv-model={MODEL}", "--kv-pairs=q8_0/q8_0", "--kv-speed=off",
                      f"--kv-store={folder / 'store'}", *build)  # fmt: skip
        self.declared = f'\n[expect."q8_0/*"]\n{SHIFTS}\n' if build else ""
        self.config = folder / "own.toml"
        told = [word for option in self.words for word in option.split("=", 1)]
        assert main(["calibrate", str(self.config), "--kv-chunks", "8", *told]) == 0

    def run(self, *words: str, noise: float = 0.0) -> tuple[Outcome, dict[str, Any]]:
        """As in CI; with ``noise`` as share of K and V in every cache but f16's."""
        config, report = self.folder / "used.toml", self.folder / "r.json"
        text = self.config.read_text() + self.declared
        if noise:
            plan = {"name": "noisy", "dose": noise, "heads": weights.kv_heads(MODEL)}
            text += f"\n[environment]\n{HOOK} = '{NOISE}'\nKVQUANT_FAULT = '{json.dumps(plan)}'\n"
        config.write_text(text)
        report.unlink(missing_ok=True)
        ran = pytest_in(
            self.folder, "--kv-matrix", f"--kv-config={config}", *self.words, *words, "-q",
            f"--kv-json={report}", timeout=1800,
        )  # fmt: skip
        cells = {one["pair"]: one for one in json.loads(report.read_text())["cells"]}
        return ran, cells["q8_0/q8_0"]


def gate_of(cell: dict[str, Any], name: str) -> dict[str, Any]:
    return next(gate for gate in cell["gates"] if gate["name"] == name)


@pytest.mark.parametrize(
    "build",
    [
        (),
        pytest.param(
            FORK,
            marks=pytest.mark.skipif(
                not FORK, reason="KVQUANT_FORK_LIB and KVQUANT_FORK_PYTHON name no build"
            ),
        ),
    ],
    ids=["upstream", "fork"],
)
def test_calibrated_then_green_then_red_at_twice_the_kl(
    build: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gate = Gate(tmp_path, build)
    budgets = tomllib.loads(gate.config.read_text())["budgets"]["q8_0/q8_0"]
    green, healthy = gate.run("--kv-zoo=off")
    assert green.code == 0, green.text
    assert (healthy["verdict"], healthy["kernel"]) == ("pass", "pass")
    assert gate_of(healthy, "kl_mean")["budget"] == budgets["kl_mean"]
    bare = ("--kv-coverage=off", "--kv-probe=off", "--kv-decode=0", "--kv-trajectory=0",
            "--kv-recall=0")  # fmt: skip
    _, pilot = gate.run("--kv-chunks=4", *bare, noise=PILOT)
    # what a small fault adds grows with the square of its dose
    dose = PILOT / math.sqrt(gate_of(pilot, "kl_ratio")["figure"] - 1)
    red, faulty = gate.run(*bare, noise=dose)
    assert gate_of(faulty, "kl_ratio")["figure"] == pytest.approx(2, rel=0.15)
    assert red.code == 1, red.text
    assert (faulty["verdict"], faulty["kernel"]) == ("fail", "fail")
