"""Latent attention: one compressed K per token, V is a part of it, no V cache."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor

ROPE = 64
QUERY_RANK = 64
EXPERTS = 2


def tensors(layers: int, heads: int, rank: int, k: int, v: int) -> Iterator[Tensor]:
    """Heads of ``k`` and ``v`` as decompressed; ``rank`` elements and rope's are stored.

    A query's compressed part meets the latent of ``rank`` elements, scaled by 1 / √k: its gain is
    such that the scores spread as everywhere.
    """
    plain = k - ROPE
    yield from blocks.ends(output=True)
    for layer in range(layers):
        at = f"blk.{layer}"
        yield from blocks.norms(at, "attn_norm", "ffn_norm")
        yield blocks.norm(f"{at}.attn_q_a_norm", QUERY_RANK)
        yield blocks.norm(f"{at}.attn_kv_a_norm", rank)
        yield blocks.matrix(f"{at}.attn_q_a", QUERY_RANK, blocks.EMBEDDING)
        yield blocks.matrix(f"{at}.attn_q_b", heads * k, QUERY_RANK, gain=blocks.PEAK)
        yield blocks.matrix(f"{at}.attn_kv_a_mqa", rank + ROPE, blocks.EMBEDDING)
        # the key of plain elements is k_b applied to the latent; its transpose is on the query here
        yield Tensor(f"{at}.attn_k_b.weight", (heads, rank, plain), rank**-0.5, half=True)
        yield blocks.matrices(f"{at}.attn_v_b", heads, v, rank)
        yield blocks.matrix(f"{at}.attn_output", blocks.EMBEDDING, heads * v)
        if layer == 0:
            yield from blocks.feed_forward(at)
        else:
            yield from blocks.experts(at, EXPERTS)
            yield from blocks.shared_expert(at)


def header(layers: int, heads: int, rank: int, k: int, v: int) -> dict[str, int | float]:
    """Keys of an MLA model as the converter writes them today."""
    plain = blocks.base(layers, heads, 1)
    counts = {key: value for key, value in plain.items() if not isinstance(value, list)}
    return {
        **counts,
        **blocks.heads_of(rank + ROPE, rank),
        "attention.key_length_mla": k,
        "attention.value_length_mla": v,
        "attention.q_lora_rank": QUERY_RANK,
        "attention.kv_lora_rank": rank,
        "rope.dimension_count": ROPE,
        "leading_dense_block_count": 1,
        "expert_count": EXPERTS,
        "expert_used_count": 1,
        "expert_shared_count": 1,
        "expert_feed_forward_length": blocks.FEED_FORWARD,
        "expert_gating_func": 2,
        "expert_weights_scale": 1.0,
    }


DEEPSEEK2 = Member(
    name="deepseek2-576",
    architecture="deepseek2",
    like="DeepSeek V2 to V3.1, Kimi K2: a latent of 512 and 64 for rope",
    head_k=576,
    head_v=512,
    group=16,
    features=("latent attention", "grouping", "rope", "experts"),
    header=header(2, 16, 512, 192, 128),
    tensors=tuple(tensors(2, 16, 512, 192, 128)),
)

DEEPSEEK2_SMALL = Member(
    name="deepseek2-320",
    architecture="deepseek2",
    like="Mistral Small 4: a latent of 256 and 64 for rope",
    head_k=320,
    head_v=256,
    group=4,
    features=("latent attention", "grouping", "rope", "experts"),
    header=header(2, 4, 256, 128, 128),
    tensors=tuple(tensors(2, 4, 256, 128, 128)),
)

MEMBERS = (DEEPSEEK2, DEEPSEEK2_SMALL)
