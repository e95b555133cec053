"""Gemma 2, 3 and 4: wide heads, windows, softcap, layers that share a cache; BOS is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor

WINDOW = 96

SOFTCAP = 5.0
CAPPED_PEAK = 4.0
"""Distribution of the scores: most lie where the cap bends, few at its end."""

GEMMA4_DIMS = (256, 256, 512, 256, 512)
GEMMA4_WINDOWED = [True, True, False, True, False]
GEMMA4_KV_HEADS = [2, 2, 1, 2, 1]
GEMMA4_SHARED = 2
"""The last layers, which read the cache of an earlier one of their kind."""


def gemma2_tensors(layers: int) -> Iterator[Tensor]:
    """Norms before and after both parts of a layer."""
    yield from blocks.ends()
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from _norms(at)
        yield from blocks.attention(at, 4, 2, 256, gain=math.sqrt(CAPPED_PEAK))
        yield from blocks.feed_forward(at)


def gemma3_tensors(layers: int) -> Iterator[Tensor]:
    """And normalized heads."""
    yield from blocks.ends()
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from _norms(at)
        yield from blocks.attention(at, 4, 1, 256)
        yield from blocks.head_norms(at, 256)
        yield from blocks.feed_forward(at)


def gemma4_tensors() -> Iterator[Tensor]:
    """Scores are not scaled by 1 / √d, so the norms of the heads are."""
    yield from blocks.ends()
    yield Tensor("rope_freqs.weight", (256,), 0.4, 2.0)
    for layer, (dim, kv_heads) in enumerate(zip(GEMMA4_DIMS, GEMMA4_KV_HEADS, strict=True)):
        at = f"blk.{layer}"
        yield from _norms(at)
        gain = math.sqrt(blocks.PEAK / math.sqrt(dim))
        own = layer < len(GEMMA4_DIMS) - GEMMA4_SHARED
        for tensor in (
            *blocks.attention(at, 8, kv_heads, dim),
            *blocks.head_norms(at, dim, gain=gain),
        ):
            if own or not tensor.name.split(".")[2].startswith(("attn_k", "attn_v")):
                yield tensor
        yield from blocks.feed_forward(at)


def _norms(at: str) -> Iterator[Tensor]:
    return blocks.norms(at, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")


GEMMA2 = Member(
    name="gemma2-256",
    architecture="gemma2",
    like="Gemma 2 2B: 8 heads of 256 over 4, softcap, every second layer with a window",
    head_k=256,
    head_v=256,
    group=2,
    features=("grouping", "rope", "softcap", "window"),
    window=WINDOW,
    bos=True,
    header={
        **blocks.base(2, 4, 2),
        **blocks.heads_of(256),
        "attn_logit_softcapping": SOFTCAP,
        "final_logit_softcapping": 30.0,
        "attention.sliding_window": WINDOW,
    },
    tensors=tuple(gemma2_tensors(2)),
)

GEMMA3 = Member(
    name="gemma3-256",
    architecture="gemma3",
    like="Gemma 3 270M and 1B: 4 heads of 256 over 1, five layers of six with a window",
    head_k=256,
    head_v=256,
    group=4,
    features=("grouping", "rope", "q and k norm", "window"),
    window=WINDOW,
    bos=True,
    header={
        **blocks.base(3, 4, 1),
        **blocks.heads_of(256),
        "attention.sliding_window": WINDOW,
        "attention.sliding_window_pattern": 3,
        "rope.freq_base": 1000000.0,
        "rope.freq_base_swa": 10000.0,
    },
    tensors=tuple(gemma3_tensors(3)),
)

GEMMA4 = Member(
    name="gemma4-512",
    architecture="gemma4",
    like="Gemma 4 E2B: heads of 512 and, in window layers, of 256; the last layers share KV",
    head_k=512,
    head_v=512,
    group=8,
    features=(
        "grouping", "rope", "rope factors", "scale", "q and k norm", "window", "two head sizes",
        "shared KV layers",
    ),
    window=WINDOW,
    bos=True,
    header={
        **blocks.base(5, 8, GEMMA4_KV_HEADS),
        **blocks.heads_of(512),
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
        "attention.sliding_window": WINDOW,
        "attention.sliding_window_pattern": GEMMA4_WINDOWED,
        "attention.shared_kv_layers": GEMMA4_SHARED,
        "embedding_length_per_layer_input": 0,
        "rope.dimension_count": 512,
        "rope.dimension_count_swa": 256,
        "rope.freq_base": 1000000.0,
        "rope.freq_base_swa": 10000.0,
    },
    tensors=tuple(gemma4_tensors()),
)  # fmt: skip

MEMBERS = (GEMMA2, GEMMA3, GEMMA4)
