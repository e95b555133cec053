"""What ``kvquant doctor`` predicts, for a library and a model that are there."""

from __future__ import annotations

from pathlib import Path

from support.tinygguf import Tiny, write

from pytest_kvquant.cli.doctor_examine import examine
from pytest_kvquant.machine import memory


def test_the_prediction_counts_a_window_once(tmp_path: Path) -> None:
    shape = Tiny(arch="gemma3", n_layer=16, window_period=16, n_vocab=300, window=64)
    path = write(tmp_path / "m.gguf", shape)
    typed = {"model": str(path), "pairs": "f16/f16", "ubatch": "128", "gpu_layers": "0"}
    (pair,) = examine(typed, config=None, root=tmp_path, shell={}).pairs
    free = memory.available()
    one_layer = pair.bytes_per_token / 16
    assert 0.5 * free < one_layer * pair.largest_context["CPU"] < free
