"""MiMo 2: K heads wider than V heads, 16 query heads to a KV head, other heads in windows."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor

WINDOW = 96
EXPERTS = 2
KV_HEADS = [1, 2]
WINDOWED = [False, True]
SINK = 5.0


def tensors() -> Iterator[Tensor]:
    """Sinks in window layers only."""
    yield from blocks.ends(output=True)
    for layer, (kv_heads, windowed) in enumerate(zip(KV_HEADS, WINDOWED, strict=True)):
        at = f"blk.{layer}"
        yield from blocks.norms(at, "attn_norm", "ffn_norm")
        yield from blocks.attention(at, 16, kv_heads, 192, 128)
        if windowed:
            yield Tensor(f"{at}.attn_sinks.weight", (16,), 0.7, SINK)
        yield from blocks.experts(at, EXPERTS)


MIMO2 = Member(
    name="mimo2-192",
    architecture="mimo2",
    like="MiMo-V2-Flash: 64 heads of 192/128 over 4, over 8 in window layers",
    head_k=192,
    head_v=128,
    group=16,
    features=("grouping", "rope", "partial rope", "sinks", "window", "experts"),
    window=WINDOW,
    header={
        **blocks.base(2, 16, KV_HEADS),
        **blocks.heads_of(192, 128),
        "rope.dimension_count": 64,
        "rope.freq_base": 5000000.0,
        "rope.freq_base_swa": 10000.0,
        "attention.sliding_window": WINDOW,
        "attention.sliding_window_pattern": WINDOWED,
        "expert_count": EXPERTS,
        "expert_used_count": 1,
        "expert_feed_forward_length": blocks.FEED_FORWARD,
        "expert_gating_func": 2,
    },
    tensors=tuple(tensors()),
)

MEMBERS = (MIMO2,)
