"""Tensors of the parts that architectures share, scaled so that attention is worth judging.

Inputs of a block are normalized, so a matrix of gain *g* and fan-in *n* has weights of standard
deviation g / √n, and its outputs one of g. With gains q and k the scores q·k / √d spread by their
product: at :data:`PEAK` the softmax is peaked but far from one-hot (of n rows about n / e^(PEAK²)
carry the weight), so that every row, head and element still moves the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_kvquant.zoo.declaration import Tensor

VOCABULARY = 320
EMBEDDING = 64
FEED_FORWARD = 64
CONTEXT = 8192
EPSILON = 1e-5

PEAK = 2.0
"""Standard deviation of the scores before softmax, in nats."""
GAIN = math.sqrt(PEAK)
"""Of the Q and of the K projection, each."""

LOGITS = 2.0
"""Standard deviation of the logits."""


def matrix(name: str, outputs: int, inputs: int, *, gain: float = 1.0) -> Tensor:
    """A linear map."""
    return Tensor(f"{name}.weight", (outputs, inputs), gain / math.sqrt(inputs), half=True)


def matrices(name: str, count: int, outputs: int, inputs: int) -> Tensor:
    """One linear map per expert or head."""
    shape = (count, outputs, inputs)
    return Tensor(f"{name}.weight", shape, 1 / math.sqrt(inputs), half=True)


def norm(name: str, size: int, *, gain: float = 1.0) -> Tensor:
    """Weights of a norm: near ``gain``, all different."""
    return Tensor(f"{name}.weight", (size,), 0.1 * gain, gain)


def bias(name: str, *shape: int, std: float = 0.2) -> Tensor:
    """Something to add."""
    return Tensor(f"{name}.bias", shape, std)


def attention(
    at: str,
    heads: int,
    kv_heads: int,
    k: int,
    v: int | None = None,
    *,
    inputs: int = EMBEDDING,
    gain: float = GAIN,
    biased: bool = False,
) -> Iterator[Tensor]:
    """Separate projections to ``heads`` queries and ``kv_heads`` keys (of k) and values (of v)."""
    v = v or k
    yield matrix(f"{at}.attn_q", heads * k, inputs, gain=gain)
    yield matrix(f"{at}.attn_k", kv_heads * k, inputs, gain=gain)
    yield matrix(f"{at}.attn_v", kv_heads * v, inputs)
    yield matrix(f"{at}.attn_output", inputs, heads * v)
    if biased:
        yield bias(f"{at}.attn_q", heads * k, std=1.0)
        yield bias(f"{at}.attn_k", kv_heads * k, std=1.0)
        yield bias(f"{at}.attn_v", kv_heads * v)


def head_norms(at: str, size: int, *, gain: float = GAIN) -> Iterator[Tensor]:
    """Norms of each Q and K head; they set the spread of the scores, whatever came in."""
    yield norm(f"{at}.attn_q_norm", size, gain=gain)
    yield norm(f"{at}.attn_k_norm", size, gain=gain)


def feed_forward(
    at: str, *, inputs: int = EMBEDDING, hidden: int = FEED_FORWARD
) -> Iterator[Tensor]:
    """A gated feed-forward block."""
    yield matrix(f"{at}.ffn_gate", hidden, inputs)
    yield matrix(f"{at}.ffn_up", hidden, inputs)
    yield matrix(f"{at}.ffn_down", inputs, hidden)


def experts(
    at: str, count: int, *, inputs: int = EMBEDDING, hidden: int = FEED_FORWARD
) -> Iterator[Tensor]:
    """A router and gated experts."""
    yield matrix(f"{at}.ffn_gate_inp", count, inputs, gain=2.0)
    yield matrices(f"{at}.ffn_gate_exps", count, hidden, inputs)
    yield matrices(f"{at}.ffn_up_exps", count, hidden, inputs)
    yield matrices(f"{at}.ffn_down_exps", count, inputs, hidden)


def shared_expert(
    at: str, *, inputs: int = EMBEDDING, hidden: int = FEED_FORWARD
) -> Iterator[Tensor]:
    """The expert that every token goes through."""
    yield matrix(f"{at}.ffn_gate_shexp", hidden, inputs)
    yield matrix(f"{at}.ffn_up_shexp", hidden, inputs)
    yield matrix(f"{at}.ffn_down_shexp", inputs, hidden)


def ends(*, inputs: int = EMBEDDING, output: bool = False) -> Iterator[Tensor]:
    """Embedding and last norm; the embedding also reads out, unless there is an ``output``.

    Its gain is that of a matrix which reads out, so that logits spread by :data:`LOGITS`.
    """
    yield matrix("token_embd", VOCABULARY, inputs, gain=LOGITS)
    yield norm("output_norm", inputs)
    if output:
        yield matrix("output", VOCABULARY, inputs, gain=LOGITS)


def norms(at: str, *names: str, inputs: int = EMBEDDING) -> Iterator[Tensor]:
    """Norms over the embedding."""
    for name in names:
        yield norm(f"{at}.{name}", inputs)


def layer_norm(name: str, size: int) -> Iterator[Tensor]:
    """A norm with a bias."""
    yield norm(name, size)
    yield bias(name, size)


def base(layers: int, heads: int, kv_heads: int | list[int]) -> dict[str, int | float | list[int]]:
    """Keys that every attention model has."""
    return {
        "block_count": layers,
        "context_length": CONTEXT,
        "embedding_length": EMBEDDING,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": EPSILON,
    }


def heads_of(k: int, v: int | None = None) -> dict[str, int]:
    """Keys for heads that are not the embedding's share."""
    return {"attention.key_length": k, "attention.value_length": v or k}
