"""The decoder, as llama.cpp computes its architecture ``qwen3``.

Modules are named as GGUF names tensors, so the keys of ``state_dict()`` are the tensor names
of the file.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .recipe import Shape

INIT_STD = 0.02


class Decoder(nn.Module):
    """Token ids in, logits out; the embedding is also the output matrix."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(shape.vocab_size, shape.n_embd)
        self.output_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_eps)
        self.blk = nn.ModuleList(Block(shape, dropout) for _ in range(shape.n_layer))
        self.dropout = nn.Dropout(dropout)
        angles = rope_angles(shape)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self._init_weights(shape.n_layer)

    def _init_weights(self, n_layer: int) -> None:
        """Draw the matrices; what is added to the residual stream starts smaller with depth."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                is_residual = name.endswith(("attn_output.weight", "ffn_down.weight"))
                std = INIT_STD / math.sqrt(2 * n_layer) if is_residual else INIT_STD
                nn.init.normal_(parameter, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute int64 ``[batch, time]`` → logits ``[batch, time, vocab_size]``."""
        time = tokens.shape[1]
        cos, sin = self.cos[:time], self.sin[:time]
        x: Tensor = self.dropout(self.token_embd(tokens))
        for block in self.blk:
            x = block(x, cos, sin)
        return F.linear(self.output_norm(x), self.token_embd.weight)


class Block(nn.Module):
    """One layer: causal attention, then a SwiGLU, each added to the residual stream."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        n_embd, head_dim, eps = shape.n_embd, shape.head_dim, shape.norm_eps
        self.head_dim = head_dim
        self.attn_norm = nn.RMSNorm(n_embd, eps=eps)
        self.attn_q = nn.Linear(n_embd, shape.n_head * head_dim, bias=False)
        self.attn_k = nn.Linear(n_embd, shape.n_head_kv * head_dim, bias=False)
        self.attn_v = nn.Linear(n_embd, shape.n_head_kv * head_dim, bias=False)
        self.attn_output = nn.Linear(shape.n_head * head_dim, n_embd, bias=False)
        self.attn_q_norm = nn.RMSNorm(head_dim, eps=eps)
        self.attn_k_norm = nn.RMSNorm(head_dim, eps=eps)
        self.ffn_norm = nn.RMSNorm(n_embd, eps=eps)
        self.ffn_gate = nn.Linear(n_embd, shape.n_ff, bias=False)
        self.ffn_up = nn.Linear(n_embd, shape.n_ff, bias=False)
        self.ffn_down = nn.Linear(shape.n_ff, n_embd, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map ``[batch, time, n_embd]`` to the same; ``cos`` and ``sin`` as in ``rotate``."""
        x = x + self.dropout(self.attention(self.attn_norm(x), cos, sin))
        out: Tensor = x + self.dropout(self.swiglu(self.ffn_norm(x)))
        return out

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Grouped-query attention over queries and keys normed in f32; shapes as in ``forward``."""
        q = rotate(self.attn_q_norm(self._heads(self.attn_q(x)).float()), cos, sin)
        k = rotate(self.attn_k_norm(self._heads(self.attn_k(x)).float()), cos, sin)
        v = self._heads(self.attn_v(x))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        out: Tensor = self.attn_output(mixed.transpose(1, 2).flatten(2))
        return out

    def swiglu(self, x: Tensor) -> Tensor:
        """Gated feed-forward; shapes as in ``forward``."""
        out: Tensor = self.ffn_down(F.silu(self.ffn_gate(x)) * self.ffn_up(x))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """Split ``[batch, time, heads * head_dim]`` → ``[batch, heads, time, head_dim]``."""
        batch, time, _ = x.shape
        return x.view(batch, time, -1, self.head_dim).transpose(1, 2)


def rope_angles(shape: Shape) -> Tensor:
    """Rotary angles in radians: f32 ``[n_ctx, head_dim / 2]``."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    frequencies = shape.rope_base**-exponents
    positions = torch.arange(shape.n_ctx, dtype=torch.float64)
    return torch.outer(positions, frequencies).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn element ``i`` with element ``i + head_dim / 2`` (the "neox" order).

    ``x`` is ``[..., time, head_dim]``, ``cos`` and ``sin`` are ``[time, head_dim / 2]``.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
