"""Recall at distance on the embedded model: healthy, and with rows lost beyond a distance."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run import run, start

FORGETS = """
def forget(self, positions):
    last = int(positions.max())
    if last > 300:
        self.llama.llama_memory_seq_rm(self.memory, 0, 0, last - 300)

def decoded(self, tokens, positions, sequences, outputs):
    logits = _decode(self, tokens, positions, sequences, outputs).copy()
    if self.planted:
        forget(self, positions)
    return logits

def opened(self, model, *, type_k, type_v, **shape):
    self.planted = (type_k, type_v) != ("f16", "f16") and shape["ctx"] > 500
    _open(self, model, type_k=type_k, type_v=type_v, **shape)

Context.__init__, Context.decode = opened, decoded
"""
"""The cell forgets, after each batch, what lies more than 300 tokens back."""


def by_distance(cell) -> dict[int, str]:
    return {one.distance: one.verdict for one in cell.recall}


@pytest.mark.slow
def test_a_healthy_cell_recalls_and_says_where_the_model_cannot(tmp_path: Path) -> None:
    cells = run(tmp_path, "q8_0/q8_0", recall=1100, ubatch=64, batch=128, decode=0, trajectory=0)
    cell = cells["q8_0/q8_0"]
    assert by_distance(cell) == {256: "pass", 512: "pass", 1024: "cannot"}
    assert all(one.kept is None or one.kept > 0.97 for one in cell.recall)
    assert by_distance(cells["f16/f16"]) == by_distance(cell)
    assert cells["f16/f16"].recall[0].kept == 1.0
    (check,) = (one for one in cell.checks if one.name == "recall")
    assert check.verdict == "pass"


def test_rows_lost_beyond_a_distance_show_there_and_only_there(tmp_path: Path) -> None:
    shape = {"recall": 600, "batch": 128, "ubatch": 64, "decode": 0, "trajectory": 0}
    cells = run(tmp_path, "q8_0/q8_0", hook=FORGETS, **shape)
    cell = cells["q8_0/q8_0"]
    assert by_distance(cell) == {256: "pass", 512: "fail"}
    assert cell.verdict == "fail"
    (check,) = (one for one in cell.checks if one.name == "recall")
    assert "512:" in check.text
    assert [gate.name for gate in cell.gates if gate.verdict == "fail"] == []


def test_a_length_without_room_is_told_once(tmp_path: Path) -> None:
    session = start(tmp_path, pairs=("q8_0/q8_0",), recall=200)
    assert any("--kv-recall 200: nothing is measured" in note for note in session._observer.notes)
