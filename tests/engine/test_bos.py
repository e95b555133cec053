"""Models that want BOS get it at the start of every sequence, by every path."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import run

from pytest_kvquant.zoo.members import by_name
from pytest_kvquant.zoo.writer import write

RECORD = """
import json, os
_decode = Context.decode

def decoded(self, tokens, positions, sequences, outputs):
    first = [int(token) for token, at in zip(tokens, positions) if at == 0]
    with open({path!r}, "a") as file:
        file.write(json.dumps(first) + "\\n")
    return _decode(self, tokens, positions, sequences, outputs)

Context.decode = decoded
"""
BRIEF = {"ctx": 64, "chunks": 2, "decode": 16, "trajectory": 4, "threads": 1, "probe": "always"}


@pytest.mark.parametrize("member", ["gemma3-256", "llama-128"])
def test_every_sequence_begins_with_bos_where_the_model_wants_it(
    member: str, tmp_path: Path
) -> None:
    model = write(tmp_path / "m.gguf", by_name(member))
    seen = tmp_path / "seen.jsonl"
    hook = RECORD.format(path=str(seen))
    cells = run.run(tmp_path, "q8_0/q8_0", model=model, hook=hook, **BRIEF)
    assert cells["q8_0/q8_0"].quality is not None
    first = [token for line in seen.read_text().splitlines() for token in eval(line)]
    assert len(first) > 20
    assert all(token == 0 for token in first) == by_name(member).bos
    shapes = next(check for check in cells["f16/f16"].checks if check.name == "shapes")
    assert shapes.verdict == "pass"


WRONG_ALONE = """
def decoded(self, tokens, positions, sequences, outputs):
    logits = _decode(self, tokens, positions, sequences, outputs)
    return logits[:, ::-1].copy() if len(tokens) == 1 else logits

Context.decode = decoded
"""
"""Every single token, f16's as the cells'."""


def test_an_f16_whose_paths_differ_fails_by_name(tmp_path: Path) -> None:
    model = write(tmp_path / "m.gguf", by_name("gemma3-256"))
    cells = run.run(tmp_path, "q8_0/q8_0", model=model, hook=WRONG_ALONE, **BRIEF)
    shapes = next(check for check in cells["f16/f16"].checks if check.name == "shapes")
    assert shapes.verdict == "fail"
    assert "f16 itself does not agree with itself" in shapes.text
