"""Without an emulated healthy cell, budgets of the owner decide, and nothing else is decided."""

from __future__ import annotations

from pathlib import Path

from support import run

from pytest_kvquant.data import EMBEDDED_MODEL

PAIR = "q8_0/q8_0"


def test_figures_without_a_budget_stay_open_and_say_why(tmp_path: Path) -> None:
    cell = run.run(tmp_path, PAIR, healthy="off", budgets={PAIR: {"kl_mean": 0.01}},
                   decode=16, trajectory=0)[PAIR]  # fmt: skip
    assert cell.healthy is None
    verdicts = {gate.name: gate.verdict for gate in cell.gates}
    assert verdicts["kl_mean"] == "pass"
    assert "kl_ratio" not in verdicts


def test_nothing_is_decided_where_nobody_has_budgets(tmp_path: Path) -> None:
    """A file of another fingerprint is a user's model."""
    model = tmp_path / "model.gguf"
    model.write_bytes(EMBEDDED_MODEL.read_bytes() + b"\0")
    cell = run.run(tmp_path, PAIR, healthy="off", model=model, decode=16, trajectory=0)[PAIR]
    assert cell.verdict == "inconclusive"
    assert {gate.verdict for gate in cell.gates} == {"inconclusive"}
    ratio = next(gate for gate in cell.gates if gate.name == "kl_ratio")
    assert ratio.rule.endswith("--kv-healthy is off, and [budgets] has none for this figure")
