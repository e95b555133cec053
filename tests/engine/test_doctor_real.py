"""What ``kvquant doctor`` predicts, for a library and a model that are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.tinygguf import Tiny, write

from pytest_kvquant.cli.doctor_examine import examine
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.inputs import model
from pytest_kvquant.machine import memory
from pytest_kvquant.session.observer import Listener
from pytest_kvquant.session.run import Session


def test_the_prediction_counts_a_window_once(tmp_path: Path) -> None:
    shape = Tiny(arch="gemma3", n_layer=16, window_period=16, n_vocab=300, window=64)
    path = write(tmp_path / "m.gguf", shape)
    typed = {"model": str(path), "pairs": "f16/f16", "ubatch": "128", "gpu_layers": "0"}
    (pair,) = examine(typed, config=None, root=tmp_path, shell={}).pairs
    free = memory.available()
    one_layer = pair.bytes_per_token / 16
    assert 0.5 * free < one_layer * pair.largest_context["CPU"] < free


def test_no_weights_are_read_not_even_for_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of 19 GB would take half a minute."""

    def read(*_: object) -> str:
        pytest.fail("the model's files were hashed")

    monkeypatch.setattr(model, "fingerprint", read)
    report = examine({"pairs": "q8_0/q8_0"}, config=None, root=tmp_path, shell={**os.environ})
    assert report.healthy
    Session(Settings(), {**os.environ}, Listener(), vocabulary_only=True).close()
