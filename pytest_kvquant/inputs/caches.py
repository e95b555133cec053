"""Which caches llama.cpp makes for a model, and what each layer stores there, by its header.

The rules are those of ``llama_hparams`` and ``llama_model::create_memory`` of llama.cpp. For an
architecture that is not known here the common case is assumed; whether it holds shows f16's own
cache, which then is the geometry (:mod:`~pytest_kvquant.inputs.geometry`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from pytest_kvquant.inputs.header_fields import Fields

Kind = Literal["attention", "window", "indexer"]


class CachedLayer(msgspec.Struct, frozen=True):
    """What one layer of the model stores per token."""

    number: int
    """Which layer of the model; -1 if that is not known."""
    heads: int
    """KV heads."""
    dim_k: int
    """Elements of a K head."""
    dim_v: int
    """Elements of a V head; 0: V is a part of K, or there is none."""


class CacheShape(msgspec.Struct, frozen=True):
    """One cache of the model's memory."""

    kind: Kind
    """``attention`` holds every token, ``window`` a window of them, ``indexer`` the keys by which
    sparse attention chooses its rows."""
    layers: tuple[CachedLayer, ...]


class Windows(NamedTuple):
    """The sliding window of a model."""

    length: int
    """Tokens; 0: there is none."""
    layers: tuple[bool, ...] | None
    """Per layer, whether it has it; empty: none has, ``None``: the header does not say."""


def caches(of: Fields, architecture: str, layers: int, window: Windows) -> tuple[CacheShape, ...]:
    """The caches in the order in which llama.cpp serializes them.

    Args:
        layers: of the model, with those that predict further tokens.

    Raises:
        BadHeader: a key has another type or another value than it can have.
    """
    trunk = trunk_layers(of, architecture, layers)
    windowed = window.layers or (False,) * layers
    attention = [
        (windowed[number], _attention(of, number, heads, windowed[number]))
        for number, heads in enumerate(kv_heads(of, architecture, layers)[:trunk])
        if heads
    ]
    plain = tuple(layer for in_window, layer in attention if not in_window)
    windows = tuple(layer for in_window, layer in attention if in_window)
    found = [CacheShape("attention", plain)] if plain or not windows else []
    indexer = tuple(_indexer(of, architecture, plain))
    if indexer:
        found.append(CacheShape("indexer", indexer))
    if windows:
        found.append(CacheShape("window", windows))
    return tuple(found)


def trunk_layers(of: Fields, architecture: str, layers: int) -> int:
    """Layers without those at the end that predict further tokens, which have no cache here."""
    if architecture in _NEXT_IS_ROUTER:
        return layers
    return max(0, layers - of.count("{arch}.nextn_predict_layers", 0, most=layers))


def kv_heads(of: Fields, architecture: str, layers: int) -> tuple[int, ...]:
    """KV heads per layer, 0 for one without a cache of its own.

    Recurrent layers are listed, or have no heads, or are all but each so many-th; the last layers
    may share the cache of an earlier one or predict further tokens.
    """
    heads = of.counts("{arch}.attention.head_count", layers, 0)
    counts = (
        of.counts("{arch}.attention.head_count_kv", layers)
        if "{arch}.attention.head_count_kv" in of
        else heads
    )
    without = {*_recurrent(of, architecture, layers), *sharing(of, architecture, layers)}
    without |= set(range(trunk_layers(of, architecture, layers), layers))
    if architecture in _FEED_FORWARD_LAYERS:
        hidden = of.counts("{arch}.feed_forward_length", layers, 0)
        without |= {layer for layer in range(layers) if hidden[layer]}
    return tuple(0 if layer in without else count for layer, count in enumerate(counts))


def _recurrent(of: Fields, architecture: str, layers: int) -> set[int]:
    interval = _LINEAR_ATTENTION.get(architecture)
    if interval is None:
        return set()
    listed = of.flags("{arch}.attention.recurrent_layers")
    if listed is not None:
        return {layer for layer, flag in enumerate(listed) if flag}
    every = of.count("{arch}.full_attention_interval", interval) or 1
    return {layer for layer in range(layers) if (layer + 1) % every}


def sharing(of: Fields, architecture: str, layers: int) -> set[int]:
    """Layers at the end that read the cache of an earlier one."""
    own = _OWN_CACHES.get(architecture, layers)
    shared = of.count("{arch}.attention.shared_kv_layers", 0, most=layers)
    return set(range(min(own, layers - shared), layers))


def _attention(of: Fields, number: int, heads: int, windowed: bool) -> CachedLayer:
    share = head_share(of)
    if windowed and "{arch}.attention.key_length_swa" in of:
        dim_k = of.count("{arch}.attention.key_length_swa", share)
        dim_v = of.count("{arch}.attention.value_length_swa", share)
    else:
        dim_k = of.count("{arch}.attention.key_length", share)
        dim_v = of.count("{arch}.attention.value_length", share)
    return CachedLayer(number, heads, dim_k, 0 if is_latent(of) else dim_v)


def is_latent(of: Fields) -> bool:
    """Whether attention is latent (MLA), K holding V: decompressed heads have lengths then."""
    return bool(
        of.count("{arch}.attention.key_length_mla", 0)
        and of.count("{arch}.attention.value_length_mla", 0)
    )


def head_share(of: Fields) -> int:
    """Elements of a head where the header does not say: the embedding's share."""
    value = max(
        of.counts("{arch}.attention.head_count", of.count("{arch}.block_count", 1, most=4096), 0)
    )
    return of.count("{arch}.embedding_length") // value if value else 0


def _indexer(
    of: Fields, architecture: str, attention: tuple[CachedLayer, ...]
) -> Iterator[CachedLayer]:
    """One key head per layer, whatever the layer itself has."""
    rule = _INDEXERS.get(architecture)
    dim = of.count("{arch}.attention.indexer.key_length", 0)
    if rule is None or not dim or not of.count("{arch}.attention.indexer.top_k", 1):
        return
    listed = of.flags("{arch}.attention.indexer.types") if rule.listed else None
    leading = of.count("{arch}.leading_dense_block_count", 0) if rule.after_dense else 0
    parts = 3 if rule.pooled and of.count("{arch}.attention.indexer.kpool", 0) else 1
    for layer in attention:
        chosen = listed is None or (layer.number < len(listed) and listed[layer.number])
        if chosen and layer.number >= leading:
            dim_v = layer.dim_v if rule.with_v else 0
            yield CachedLayer(layer.number, 1, parts * dim, dim_v)


class _Indexer(NamedTuple):
    """How an architecture caches the keys of its indexer."""

    listed: bool = False
    """``attention.indexer.types`` says which layers have one."""
    after_dense: bool = False
    """Leading dense layers have none."""
    with_v: bool = False
    """A V row is allocated beside each key."""
    pooled: bool = False
    """Key, gate and pooled key are stored."""


_INDEXERS: Final[Mapping[str, _Indexer]] = {
    "deepseek32": _Indexer(),
    "dots3note": _Indexer(listed=True),
    "glm-dsa": _Indexer(listed=True),
    "glm5-next": _Indexer(listed=True, pooled=True),
    "hy_v4": _Indexer(listed=True),
    "minimax-m3": _Indexer(after_dense=True, with_v=True),
    "qwen4exp": _Indexer(),
}

_LINEAR_ATTENTION: Final[Mapping[str, int]] = {
    "minimax-01": 8, "qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4,
}  # fmt: skip
"""One layer in so many has attention, where the header leaves it out."""

_OWN_CACHES: Final[Mapping[str, int]] = {"gemma3n": 20}
"""So many first layers have a cache of their own, whatever the header says."""

_FEED_FORWARD_LAYERS: Final = frozenset({"nemotron_h", "nemotron_h_moe"})
"""A layer with a feed-forward block has nothing else."""

_NEXT_IS_ROUTER: Final = frozenset({"graniteswitch"})
"""The layer that counts as predicting is attended by the others."""


def windows(of: Fields, architecture: str, layers: int) -> Windows:
    """The window and the layers that have it, as llama.cpp loads them.

    They are listed, or all but each so many-th have it. Architectures that are not known here may
    read neither key: theirs is an open question.
    """
    if architecture in _WITHOUT_WINDOWS:
        return Windows(0, ())
    known = _WINDOWS.get(architecture)
    length = of.count("{arch}.attention.sliding_window", known.length if known else 0)
    if length == 0:
        return Windows(0, ())
    if (listed := of.flags("{arch}.attention.sliding_window_pattern")) is not None:
        return Windows(length, listed[:layers] if len(listed) >= layers else None)
    if known is None:
        return Windows(length, None)
    period = of.count("{arch}.attention.sliding_window_pattern", known.period)
    place = 0 if known.full_first else period - 1
    return Windows(length, tuple(not period or layer % period != place for layer in range(layers)))


class _Pattern(NamedTuple):
    """What llama.cpp takes where the header leaves it out."""

    period: int
    """One layer in so many has no window; 0: all have it."""
    length: int = 0
    """Tokens; 0: no window then."""
    full_first: bool = False
    """The first layer of a period has no window, not the last."""


_WINDOWS: Final[Mapping[str, _Pattern]] = {
    "afmoe": _Pattern(4),
    "cohere2": _Pattern(4),
    "cohere2moe": _Pattern(4, full_first=True),
    "deepseek4": _Pattern(0),
    "exaone-moe": _Pattern(4, 128),
    "gemma2": _Pattern(2, 4096),
    "gemma3": _Pattern(6),
    "gemma3n": _Pattern(5),
    "gpt-oss": _Pattern(2),
    "laguna": _Pattern(4, full_first=True),
    "lfm2": _Pattern(0),
    "llama4": _Pattern(4, 8192),
    "mellum": _Pattern(4),
    "muse-glimmer": _Pattern(4),
    "olmo2": _Pattern(4),
    "plamo3": _Pattern(8),
    "smallthinker": _Pattern(4, full_first=True),
}

_WITHOUT_WINDOWS: Final = frozenset({"phi3", "phimoe", "qwen2", "qwen3", "qwen2vl", "mistral3"})
"""Their headers may carry a window that llama.cpp does not apply."""
