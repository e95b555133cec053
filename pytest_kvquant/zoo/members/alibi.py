"""BLOOM: no rope; a bias by distance instead, of another slope for each head."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor

HEADS, DIM = 8, 64
WIDTH = HEADS * DIM


def tensors(layers: int) -> Iterator[Tensor]:
    """Fused projections, biases everywhere."""
    yield from blocks.ends(inputs=WIDTH)
    yield blocks.bias("output_norm", WIDTH)
    yield from blocks.layer_norm("token_embd_norm", WIDTH)
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.layer_norm(f"{at}.attn_norm", WIDTH)
        yield blocks.matrix(f"{at}.attn_qkv", 3 * WIDTH, WIDTH, gain=blocks.GAIN)
        yield blocks.bias(f"{at}.attn_qkv", 3 * WIDTH)
        yield blocks.matrix(f"{at}.attn_output", WIDTH, WIDTH)
        yield blocks.bias(f"{at}.attn_output", WIDTH)
        yield from blocks.layer_norm(f"{at}.ffn_norm", WIDTH)
        yield blocks.matrix(f"{at}.ffn_up", blocks.FEED_FORWARD, WIDTH)
        yield blocks.bias(f"{at}.ffn_up", blocks.FEED_FORWARD)
        yield blocks.matrix(f"{at}.ffn_down", WIDTH, blocks.FEED_FORWARD)
        yield blocks.bias(f"{at}.ffn_down", WIDTH)


BLOOM = Member(
    name="bloom-64",
    architecture="bloom",
    like="BLOOM 560M: 16 heads of 64 with ALiBi",
    head_k=DIM,
    head_v=DIM,
    group=1,
    features=("alibi", "q and k bias"),
    header={
        **blocks.base(2, HEADS, HEADS),
        "embedding_length": WIDTH,
        "attention.layer_norm_epsilon": blocks.EPSILON,
    },
    tensors=tuple(tensors(2)),
)

MEMBERS = (BLOOM,)
