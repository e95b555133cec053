"""Qwen 2 and 3: odd groupings, biased or normalized heads, experts."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor

EXPERTS = 4


def qwen2_tensors(layers: int, heads: int, dim: int) -> Iterator[Tensor]:
    """Biased projections; the embedding is as wide as all query heads."""
    width = heads * dim
    yield from blocks.ends(inputs=width)
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.norms(at, "attn_norm", "ffn_norm", inputs=width)
        yield from blocks.attention(at, heads, 1, dim, inputs=width, gain=1.2, biased=True)
        yield from blocks.feed_forward(at, inputs=width)


def qwen3_tensors(layers: int, heads: int, kv_heads: int, *, moe: bool) -> Iterator[Tensor]:
    """Normalized heads of 128."""
    yield from blocks.ends()
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.norms(at, "attn_norm", "ffn_norm")
        yield from blocks.attention(at, heads, kv_heads, 128)
        yield from blocks.head_norms(at, 128)
        yield from blocks.experts(at, EXPERTS) if moe else blocks.feed_forward(at)


QWEN2 = Member(
    name="qwen2-128",
    architecture="qwen2",
    like="Qwen2.5 7B: 28 heads of 128 over 4",
    head_k=128,
    head_v=128,
    group=7,
    features=("grouping", "rope", "q and k bias"),
    header={
        **blocks.base(2, 7, 1),
        "embedding_length": 7 * 128,
        "rope.freq_base": 1000000.0,
    },
    tensors=tuple(qwen2_tensors(2, 7, 128)),
)

QWEN3 = Member(
    name="qwen3-128",
    architecture="qwen3",
    like="Qwen3 14B: 40 heads of 128 over 8",
    head_k=128,
    head_v=128,
    group=5,
    features=("grouping", "rope", "q and k norm"),
    header={**blocks.base(2, 10, 2), **blocks.heads_of(128), "rope.freq_base": 1000000.0},
    tensors=tuple(qwen3_tensors(2, 10, 2, moe=False)),
)

QWEN3_MOE = Member(
    name="qwen3moe-128",
    architecture="qwen3moe",
    like="Qwen3 30B-A3B: 32 heads of 128 over 4, experts",
    head_k=128,
    head_v=128,
    group=8,
    features=("grouping", "rope", "q and k norm", "experts"),
    header={
        **blocks.base(2, 8, 1),
        **blocks.heads_of(128),
        "rope.freq_base": 1000000.0,
        "expert_count": EXPERTS,
        "expert_used_count": 2,
        "expert_feed_forward_length": blocks.FEED_FORWARD,
    },
    tensors=tuple(qwen3_tensors(2, 8, 1, moe=True)),
)

MEMBERS = (QWEN2, QWEN3, QWEN3_MOE)
