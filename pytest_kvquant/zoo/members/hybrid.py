"""Hybrids: layers that keep a state of fixed size beside, or instead of, a KV cache."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor

EXPERTS = 4
CONVOLUTION = 4
INTERVAL = 2
"""In the hybrid of Qwen, one layer in so many has attention."""
KEY_HEADS, VALUE_HEADS, STATE = 2, 4, 64
"""Of linear attention."""


def qwen35_tensors(layers: int) -> Iterator[Tensor]:
    """Gated delta nets, and attention whose output is gated by half of the Q projection."""
    yield from blocks.ends()
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.norms(at, "attn_norm", "post_attention_norm")
        yield from _gated_attention(at) if layer % INTERVAL else _delta_net(at)
        yield from blocks.experts(at, EXPERTS)
        yield from blocks.shared_expert(at)
        yield Tensor(f"{at}.ffn_gate_inp_shexp.weight", (blocks.EMBEDDING,), 0.125)


def _gated_attention(at: str) -> Iterator[Tensor]:
    heads, dim = 16, 256
    yield blocks.matrix(f"{at}.attn_q", 2 * heads * dim, blocks.EMBEDDING)
    yield blocks.matrix(f"{at}.attn_k", 2 * dim, blocks.EMBEDDING)
    yield blocks.matrix(f"{at}.attn_v", 2 * dim, blocks.EMBEDDING)
    yield blocks.matrix(f"{at}.attn_output", blocks.EMBEDDING, heads * dim)
    yield from blocks.head_norms(at, dim)


def _delta_net(at: str) -> Iterator[Tensor]:
    keys, values = KEY_HEADS * STATE, VALUE_HEADS * STATE
    yield blocks.matrix(f"{at}.attn_qkv", 2 * keys + values, blocks.EMBEDDING)
    yield blocks.matrix(f"{at}.attn_gate", values, blocks.EMBEDDING)
    yield Tensor(f"{at}.ssm_conv1d.weight", (2 * keys + values, CONVOLUTION), 0.5)
    yield Tensor(f"{at}.ssm_dt.bias", (VALUE_HEADS,), 0.5, -3.0)
    yield Tensor(f"{at}.ssm_a", (VALUE_HEADS,), 0.3, -2.0)
    yield blocks.matrix(f"{at}.ssm_beta", VALUE_HEADS, blocks.EMBEDDING)
    yield blocks.matrix(f"{at}.ssm_alpha", VALUE_HEADS, blocks.EMBEDDING)
    yield blocks.norm(f"{at}.ssm_norm", STATE)
    yield blocks.matrix(f"{at}.ssm_out", blocks.EMBEDDING, values)


def falcon_tensors(layers: int, *, inner: int, state: int, rank: int) -> Iterator[Tensor]:
    """Attention and a state space side by side in every layer."""
    yield from blocks.ends()
    width = inner + 2 * state
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.norms(at, "attn_norm")
        yield Tensor(f"{at}.ffn_norm", (blocks.EMBEDDING,), 0.1, 1.0)  # no .weight there
        yield from blocks.attention(at, 4, 2, 64)
        yield blocks.matrix(f"{at}.ssm_in", inner + width + rank, blocks.EMBEDDING)
        yield Tensor(f"{at}.ssm_conv1d.weight", (width, CONVOLUTION), 0.5)
        yield blocks.bias(f"{at}.ssm_conv1d", width)
        yield Tensor(f"{at}.ssm_dt.bias", (rank,), 0.5, -3.0)
        yield Tensor(f"{at}.ssm_a", (rank, 1), 0.3, -2.0)
        yield Tensor(f"{at}.ssm_d", (rank, 1), 0.3, 1.0)
        yield Tensor(f"{at}.ssm_norm.weight", (1, inner), 0.1, 1.0)
        yield blocks.matrix(f"{at}.ssm_out", blocks.EMBEDDING, inner)
        yield from blocks.feed_forward(at)


QWEN35_MOE = Member(
    name="qwen35moe-256",
    architecture="qwen35moe",
    like="Qwen3.5 and 3.6 35B-A3B: 16 heads of 256 over 2 in each fourth layer, linear else",
    head_k=256,
    head_v=256,
    group=8,
    features=(
        "grouping", "rope", "partial rope", "q and k norm", "gated attention", "recurrent layers",
        "experts",
    ),
    header={
        **blocks.base(4, 16, 2),
        **blocks.heads_of(256),
        "rope.dimension_count": 64,
        "rope.dimension_sections": [11, 11, 10, 0],
        "rope.freq_base": 10000000.0,
        "full_attention_interval": INTERVAL,
        "ssm.conv_kernel": CONVOLUTION,
        "ssm.inner_size": VALUE_HEADS * STATE,
        "ssm.state_size": STATE,
        "ssm.time_step_rank": VALUE_HEADS,
        "ssm.group_count": KEY_HEADS,
        "expert_count": EXPERTS,
        "expert_used_count": 2,
        "expert_feed_forward_length": blocks.FEED_FORWARD,
        "expert_shared_feed_forward_length": blocks.FEED_FORWARD,
    },
    tensors=tuple(qwen35_tensors(4)),
)  # fmt: skip

FALCON_H1 = Member(
    name="falcon-h1-64",
    architecture="falcon-h1",
    like="Falcon-H1 0.5B: 8 heads of 64 over 2 beside a state space, in every layer",
    head_k=64,
    head_v=64,
    group=2,
    features=("grouping", "rope", "recurrent layers"),
    header={
        **blocks.base(2, 4, 2),
        **blocks.heads_of(64),
        "ssm.conv_kernel": CONVOLUTION,
        "ssm.inner_size": 128,
        "ssm.state_size": 32,
        "ssm.time_step_rank": 4,
        "ssm.group_count": 1,
    },
    tensors=tuple(falcon_tensors(2, inner=128, state=32, rank=4)),
)

MEMBERS = (QWEN35_MOE, FALCON_H1)
