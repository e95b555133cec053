"""Which caches a header means, architecture by architecture, as llama.cpp makes them."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kvquant.inputs.caches import CachedLayer, CacheShape, caches, kv_heads, windows
from pytest_kvquant.inputs.gguf_header import Value
from pytest_kvquant.inputs.header_fields import Fields

COMMON: dict[str, Value] = {
    "embedding_length": 64,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}
LATENT: dict[str, Value] = {
    "attention.head_count_kv": 1,
    "attention.key_length": 576,
    "attention.value_length": 512,
    "attention.key_length_mla": 192,
    "attention.value_length_mla": 128,
}


def of(architecture: str, keys: dict[str, Value]) -> Fields:
    return Fields(
        {f"{architecture}.{key}": value for key, value in {**COMMON, **keys}.items()}, architecture
    )


def shapes(architecture: str, layers: int, **keys: Any) -> dict[str, list[tuple[int, int, int]]]:
    """Per cache, in order, the number of each layer and the elements of its K and V rows."""
    fields = of(architecture, {key.replace("__", "."): value for key, value in keys.items()})
    found = caches(fields, architecture, layers, windows(fields, architecture, layers))
    return {
        shape.kind: [
            (layer.number, layer.heads * layer.dim_k, layer.heads * layer.dim_v)
            for layer in shape.layers
        ]
        for shape in found
    }


def latent(**keys: Any) -> dict[str, Any]:
    return {key.replace(".", "__"): value for key, value in LATENT.items()} | keys


def test_the_common_case() -> None:
    assert shapes("llama", 2) == {"attention": [(0, 32, 32), (1, 32, 32)]}
    assert shapes("unheard-of", 1, attention__key_length=24, attention__value_length=8) == {
        "attention": [(0, 48, 16)]
    }


def test_heads_of_each_layer() -> None:
    assert shapes("deci", 3, attention__head_count_kv=(2, 0, 1)) == {
        "attention": [(0, 32, 32), (2, 16, 16)]
    }


def test_window_layers_have_a_cache_and_may_have_heads_of_their_own() -> None:
    found = shapes(
        "gemma4",
        4,
        attention__head_count_kv=(2, 1, 2, 1),
        attention__key_length=512,
        attention__value_length=512,
        attention__key_length_swa=256,
        attention__value_length_swa=256,
        attention__sliding_window=64,
        attention__sliding_window_pattern=(True, False, True, False),
        attention__shared_kv_layers=1,
    )
    assert found == {"attention": [(1, 512, 512)], "window": [(0, 512, 512), (2, 512, 512)]}


def test_gemma3n_stores_twenty_layers_whatever_its_header_says() -> None:
    found = shapes("gemma3n", 30, attention__sliding_window=64)
    assert [len(layers) for layers in found.values()] == [4, 16]


def test_latent_attention_stores_no_v() -> None:
    assert shapes("deepseek2", 1, **latent()) == {"attention": [(0, 576, 0)]}
    assert shapes("mistral4", 1, **latent()) == {"attention": [(0, 576, 0)]}
    old = shapes("deepseek2", 1, attention__key_length=192, attention__value_length=128)
    assert old == {"attention": [(0, 384, 256)]}


@pytest.mark.parametrize("architecture", ["kimi-linear", "kimi-k3", "bailingmoe3"])
def test_latent_layers_between_recurrent_ones(architecture: str) -> None:
    found = shapes(architecture, 2, **latent(attention__head_count_kv=(0, 1)))
    assert found == {"attention": [(1, 576, 0)]}


INDEXER = {"attention__indexer__key_length": 128}


@pytest.mark.parametrize("architecture", ["glm-dsa", "deepseek32"])
def test_an_indexer_caches_one_key_per_layer(architecture: str) -> None:
    found = shapes(architecture, 2, **latent(**INDEXER))
    assert found["indexer"] == [(0, 128, 0), (1, 128, 0)]


@pytest.mark.parametrize("architecture", ["glm-dsa", "hy_v4"])
def test_listed_indexers(architecture: str) -> None:
    found = shapes(architecture, 2, **latent(**INDEXER, attention__indexer__types=(1, 0)))
    assert found["indexer"] == [(0, 128, 0)]


def test_other_indexers() -> None:
    minimax = shapes("minimax-m3", 3, leading_dense_block_count=1, **INDEXER)
    assert minimax["attention"] == [(0, 32, 32), (1, 32, 32), (2, 32, 32)]
    assert minimax["indexer"] == [(1, 128, 16), (2, 128, 16)]
    pooled = shapes(
        "glm5-next", 2, **latent(**INDEXER, attention__head_count_kv=(1, 0)),
        attention__indexer__kpool=4,
    )  # fmt: skip
    assert pooled["indexer"] == [(0, 384, 0)]
    hybrid = shapes("qwen4exp", 4, full_attention_interval=2, **INDEXER)
    assert hybrid == {
        "attention": [(1, 32, 32), (3, 32, 32)],
        "indexer": [(1, 128, 0), (3, 128, 0)],
    }
    without = shapes("hy_v4", 1, **latent(**INDEXER, attention__indexer__top_k=0))
    assert list(without) == ["attention"]


def test_the_indexer_stands_before_the_window() -> None:
    found = shapes(
        "dots3note", 2, **latent(**INDEXER, attention__indexer__types=(1, 0)),
        attention__sliding_window=64, attention__sliding_window_pattern=(False, True),
    )  # fmt: skip
    assert found == {
        "attention": [(0, 576, 0)], "indexer": [(0, 128, 0)], "window": [(1, 576, 0)],
    }  # fmt: skip


def test_linear_attention() -> None:
    assert list(kv_heads(of("qwen35moe", {}), "qwen35moe", 4)) == [0, 0, 0, 2]
    assert list(kv_heads(of("qwen35moe", {"full_attention_interval": 2}), "qwen35moe", 4)) == [
        0, 2, 0, 2,
    ]  # fmt: skip
    listed: dict[str, Value] = {"attention.recurrent_layers": (True, False)}
    assert list(kv_heads(of("qwen3next", listed), "qwen3next", 2)) == [0, 2]
    # another architecture does not read the key
    assert list(kv_heads(of("llama", {"full_attention_interval": 2}), "llama", 2)) == [2, 2]


def test_layers_of_a_feed_forward_block_alone() -> None:
    keys: dict[str, Value] = {
        "attention.head_count_kv": (2, 0, 0), "feed_forward_length": (0, 0, 64),
    }  # fmt: skip
    assert list(kv_heads(of("nemotron_h", keys), "nemotron_h", 3)) == [2, 0, 0]


def test_layers_that_predict_further_tokens() -> None:
    assert list(kv_heads(of("glm4moe", {"nextn_predict_layers": 1}), "glm4moe", 3)) == [2, 2, 0]
    kept = kv_heads(of("graniteswitch", {"nextn_predict_layers": 1}), "graniteswitch", 2)
    assert list(kept) == [2, 2]


def test_windows_that_llama_cpp_does_not_apply() -> None:
    assert windows(of("phi3", {"attention.sliding_window": 2047}), "phi3", 2) == (0, ())
    assert windows(of("lfm2", {"attention.sliding_window": 64}), "lfm2", 2) == (64, (True, True))
    first = windows(of("smallthinker", {"attention.sliding_window": 64}), "smallthinker", 5)
    assert first.layers == (False, True, True, True, False)


def test_all_layers_with_a_window_leave_no_other_cache() -> None:
    assert shapes("lfm2", 1, attention__sliding_window=64) == {"window": [(0, 32, 32)]}


def test_records_travel_as_data() -> None:
    import msgspec

    shape = CacheShape("attention", (CachedLayer(0, 2, 16, 16),))
    assert msgspec.convert(msgspec.to_builtins(shape), CacheShape) == shape
