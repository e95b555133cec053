"""Llama: the plain case, at two head sizes, with scaled rope frequencies and without rope."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor


def tensors(layers: int, heads: int, kv_heads: int, dim: int) -> Iterator[Tensor]:
    """Separate projections and a gated feed-forward block in every layer."""
    yield from blocks.ends()
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.norms(at, "attn_norm", "ffn_norm")
        yield from blocks.attention(at, heads, kv_heads, dim)
        yield from blocks.feed_forward(at)


def frequency_factors(dim: int) -> Tensor:
    """By which rope frequencies are divided: between 2 and 6 here, 1 to 8 in Llama 3.1."""
    return Tensor("rope_freqs.weight", (dim // 2,), 0.4, 4.0)


LLAMA_128 = Member(
    name="llama-128",
    architecture="llama",
    like="Llama 3.1 8B: 32 heads of 128 over 8",
    head_k=128,
    head_v=128,
    group=4,
    features=("grouping", "rope", "rope factors"),
    header={
        **blocks.base(2, 8, 2),
        **blocks.heads_of(128),
        "rope.dimension_count": 128,
        "rope.freq_base": 500000.0,
    },
    tensors=(*tensors(2, 8, 2, 128), frequency_factors(128)),
)

LLAMA_112 = Member(
    name="llama-112",
    architecture="llama",
    like="fine-tuned and pruned Llamas with heads of 112",
    head_k=112,
    head_v=112,
    group=2,
    features=("grouping", "rope"),
    header={
        **blocks.base(2, 4, 2),
        **blocks.heads_of(112),
        "rope.dimension_count": 112,
        "rope.freq_base": 10000.0,
    },
    tensors=tuple(tensors(2, 4, 2, 112)),
)

SMOLLM3 = Member(
    name="smollm3-128",
    architecture="smollm3",
    like="SmolLM3 3B: 16 heads of 128 over 4, no rope in each fourth layer",
    head_k=128,
    head_v=128,
    group=4,
    features=("grouping", "rope", "layers without rope"),
    header={
        **blocks.base(4, 4, 1),
        **blocks.heads_of(128),
        "rope.dimension_count": 128,
        "rope.freq_base": 10000.0,
    },
    tensors=tuple(tensors(4, 4, 1, 128)),
)

MEMBERS = (LLAMA_128, LLAMA_112, SMOLLM3)
