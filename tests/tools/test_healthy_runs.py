"""What a healthy run is made of follows from its seed, and what came of it is kept."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tools import healthy_runs
from tools.healthy_runs import TYPES, Told, kept, plan, says_alarm


def asked(**more: object) -> argparse.Namespace:
    return argparse.Namespace(**{"types": TYPES, "pairs": 3, "members": 2, "model": [], **more})


def test_a_run_can_be_had_again_by_its_seed() -> None:
    assert plan(7, asked()) == plan(7, asked())
    assert len({tuple(plan(seed, asked())[1]) for seed in range(50)}) == 50


def test_models_take_turns() -> None:
    models = {plan(seed, asked(model=["embedded", "m.gguf"]))[0] for seed in range(20)}
    assert models == {"embedded", "m.gguf"}
    options = plan(1, asked(model=["m.gguf"]))[1]
    assert "--kv-model=m.gguf" in options


@pytest.mark.parametrize(
    ("rc", "output", "expected"),
    [
        (0, "PASSED", []),
        (1, "FAILED test_x.py::test_y[q8_0/q8_0] - Failed: too much", 1),
        (4, "kvquant: there is no model", 1),
    ],
)
def test_what_fails_is_an_alarm(rc: int, output: str, expected: object) -> None:
    found = says_alarm(rc, output, "")
    assert found == expected or len(found) == expected


def test_runs_are_kept_at_once(tmp_path: Path) -> None:
    keep = tmp_path / "runs.json"
    one = Told(1, "installed", "embedded", ["--kv-seed=1"], 0, 2.5, [], 3)
    healthy_runs.append(keep, one)
    healthy_runs.append(keep, one._replace(seed=2))
    assert [entry["seed"] for entry in kept(keep)] == [1, 2]
    assert json.loads(keep.read_text())[0]["undecided"] == 3
