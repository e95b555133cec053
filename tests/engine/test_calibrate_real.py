"""Calibrate on the embedded model as on any other, then run with what was written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from support.run import cells_of, measure

from pytest_kvquant.checks import registry
from pytest_kvquant.cli.main import main
from pytest_kvquant.config.resolver import resolve

TWICE = """
def noisy(logits, tokens, positions, sequences):
    noise = np.random.default_rng(len(tokens)).standard_normal(logits.shape)
    return logits + (0.2 * noise).astype(np.float32)

plant(change_logits=noisy)
"""


@pytest.mark.slow
def test_calibrated_then_green_then_red_with_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "own.toml"
    words = ["--kv-pairs", "q8_0/q8_0", "--kv-ctx", "128", "--kv-chunks", "8", "--kv-speed", "off",
             "--kv-coverage", "off", "--kv-probe", "off", "--kv-store", "store"]  # fmt: skip
    assert main(["calibrate", str(out), *words]) == 0
    text = out.read_text()
    assert "# measured: KL 0.0" in text
    table = tomllib.loads(text)["budgets"]["q8_0/q8_0"]
    assert 0.0001 <= table["kl_mean"] < 0.01
    assert main(["calibrate", str(out), *words]) == 2
    assert "nothing is written over it" in capsys.readouterr().err
    budgets = resolve({}, config=out, root=tmp_path, budgets=registry.budget_units()).budgets
    shape = {"ctx": 128, "chunks": 16, "budgets": budgets}
    healthy = cells_of(measure(tmp_path, "q8_0/q8_0", **shape))["q8_0/q8_0"]
    assert [gate.name for gate in healthy.gates if gate.verdict == "fail"] == []
    faulty = cells_of(measure(tmp_path, "q8_0/q8_0", hook=TWICE, **shape))["q8_0/q8_0"]
    assert "kl_mean" in [gate.name for gate in faulty.gates if gate.verdict == "fail"]
