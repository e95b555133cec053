"""Phi: heads of 80 and 96, which blocks of 32, 64 and 128 do not all divide."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor


def phi2_tensors(layers: int, heads: int, dim: int) -> Iterator[Tensor]:
    """Attention and feed-forward side by side, biases everywhere."""
    width = heads * dim
    yield from blocks.ends(inputs=width, output=True)
    yield blocks.bias("output", blocks.VOCABULARY)
    yield blocks.bias("output_norm", width)
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.layer_norm(f"{at}.attn_norm", width)
        yield from blocks.attention(at, heads, heads, dim, inputs=width, biased=True)
        yield blocks.bias(f"{at}.attn_output", width)
        yield blocks.matrix(f"{at}.ffn_up", blocks.FEED_FORWARD, width)
        yield blocks.bias(f"{at}.ffn_up", blocks.FEED_FORWARD)
        yield blocks.matrix(f"{at}.ffn_down", width, blocks.FEED_FORWARD)
        yield blocks.bias(f"{at}.ffn_down", width)


def phi3_tensors(layers: int, heads: int, dim: int) -> Iterator[Tensor]:
    """Fused projections; long and short rope factors."""
    width, hidden = heads * dim, blocks.FEED_FORWARD
    yield from blocks.ends(inputs=width)
    yield Tensor("rope_factors_long.weight", (dim // 2,), 0.4, 4.0)
    yield Tensor("rope_factors_short.weight", (dim // 2,), 0.1, 1.5)
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.norms(at, "attn_norm", "ffn_norm", inputs=width)
        yield blocks.matrix(f"{at}.attn_qkv", 3 * width, width, gain=blocks.GAIN)
        yield blocks.matrix(f"{at}.attn_output", width, width)
        yield blocks.matrix(f"{at}.ffn_up", 2 * hidden, width)
        yield blocks.matrix(f"{at}.ffn_down", width, hidden)


PHI2 = Member(
    name="phi2-80",
    architecture="phi2",
    like="Phi-2: 32 heads of 80, rope in the first 32 elements",
    head_k=80,
    head_v=80,
    group=1,
    features=("rope", "partial rope", "q and k bias"),
    header={
        **blocks.base(2, 4, 4),
        "embedding_length": 320,
        "attention.layer_norm_epsilon": blocks.EPSILON,
        "rope.dimension_count": 32,
    },
    tensors=tuple(phi2_tensors(2, 4, 80)),
)

PHI3 = Member(
    name="phi3-96",
    architecture="phi3",
    like="Phi-3 mini: 32 heads of 96",
    head_k=96,
    head_v=96,
    group=1,
    features=("rope", "rope factors"),
    header={
        **blocks.base(2, 4, 4),
        "embedding_length": 384,
        "rope.dimension_count": 96,
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.attn_factor": 1.19,
    },
    tensors=tuple(phi3_tensors(2, 4, 96)),
)

MEMBERS = (PHI2, PHI3)
