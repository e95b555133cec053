"""gpt-oss: sinks, windows and YaRN."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor

WINDOW = 96
EXPERTS = 4
SINK = 5.5
"""Near the logarithm of what a window's rows add up to: a sink takes a tenth to a half."""


def tensors(layers: int, heads: int, kv_heads: int, dim: int) -> Iterator[Tensor]:
    """Biases everywhere, one sink per query head."""
    yield from blocks.ends(output=True)
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.norms(at, "attn_norm", "post_attention_norm")
        yield from blocks.attention(at, heads, kv_heads, dim)
        yield blocks.bias(f"{at}.attn_output", blocks.EMBEDDING)
        yield Tensor(f"{at}.attn_sinks.weight", (heads,), 0.7, SINK)
        yield from blocks.experts(at, EXPERTS)
        yield blocks.bias(f"{at}.ffn_gate_inp", EXPERTS)
        yield blocks.bias(f"{at}.ffn_gate_exps", EXPERTS, blocks.FEED_FORWARD)
        yield blocks.bias(f"{at}.ffn_up_exps", EXPERTS, blocks.FEED_FORWARD)
        yield blocks.bias(f"{at}.ffn_down_exps", EXPERTS, blocks.EMBEDDING)


GPT_OSS = Member(
    name="gpt-oss-64",
    architecture="gpt-oss",
    like="gpt-oss 20B: 64 heads of 64 over 8, sinks, every second layer with a window",
    head_k=64,
    head_v=64,
    group=8,
    features=("grouping", "rope", "yarn", "sinks", "window", "experts"),
    window=WINDOW,
    header={
        **blocks.base(2, 16, 2),
        **blocks.heads_of(64),
        "rope.dimension_count": 64,
        "rope.freq_base": 150000.0,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 8.0,
        "rope.scaling.original_context_length": 1024,
        "attention.sliding_window": WINDOW,
        "expert_count": EXPERTS,
        "expert_used_count": 2,
        "expert_feed_forward_length": blocks.FEED_FORWARD,
    },
    tensors=tuple(tensors(2, 16, 2, 64)),
)

MEMBERS = (GPT_OSS,)
