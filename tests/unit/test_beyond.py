"""Contexts beyond what a model was trained for are said with the figures."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kvquant.inputs.beyond import warnings
from pytest_kvquant.inputs.model import Model


def model(trained: int) -> Model:
    return Model(
        path="m.gguf", name="m", architecture="qwen3", fingerprint="", size=1,
        context_trained=trained, n_layer=1, n_embd=64, n_head=1, n_head_kv=(1,), head_dim_k=64,
        head_dim_v=64, causal=True,
    )  # fmt: skip


YARN = {
    "qwen3.rope.scaling.type": "yarn",
    "qwen3.rope.scaling.original_context_length": 32768,
}


@pytest.mark.parametrize(
    ("trained", "header", "tokens", "setup", "told"),
    [
        (4096, {}, 4096, {}, None),
        (4096, {}, 8192, {}, "contexts of 8,192 tokens: the model was trained for 4,096"),
        (4096, {}, 8192, {"rope-scaling": "yarn"}, None),
        (0, {}, 8192, {}, None),
        (131072, YARN, 65536, {}, None),
        (131072, YARN, 65536, {"rope-scaling": "none"}, "--kv-llama switched it off"),
        (
            131072, {"qwen3.rope.scaling.original_context_length": 32768}, 65536, {},
            "trained on 32,768, reaches 131,072 by scaled ropes (YaRN)",
        ),
        (131072, YARN, 16384, {"rope-scaling": "none"}, None),
        (131072, YARN, 262144, {}, "trained for 131,072"),
    ],
)  # fmt: skip
def test_what_is_said(
    trained: int, header: dict[str, Any], tokens: int, setup: dict[str, Any], told: str | None
) -> None:
    found = warnings(model(trained), header, tokens, setup)
    assert bool(found) is (told is not None)
    assert told is None or told in found[0]


def test_the_advice_can_be_typed() -> None:
    (line,) = warnings(model(131072), {**YARN, "qwen3.rope.scaling.type": "none"}, 65536, {})
    assert "--kv-llama='--rope-scaling yarn --rope-scale 4 --yarn-orig-ctx 32768'" in line
