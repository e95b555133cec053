"""The numbers of a model and of its training. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Geometry of a Qwen3-architecture decoder."""

    vocab_size: int
    """entries of the tokenizer, and rows of the tied embedding"""
    n_layer: int
    n_embd: int
    """width of the residual stream"""
    n_head: int
    """query heads"""
    n_head_kv: int
    """key and value heads; divides ``n_head``"""
    n_ff: int
    """inner width of the SwiGLU"""
    n_ctx: int
    """longest context, in tokens"""
    head_dim: int = 128
    """width of one head: 128, because most kernels of quantized KV caches expect it"""
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and at which context lengths a model is trained."""

    steps: int
    tokens_per_step: int
    """predicted tokens of one optimizer step; a multiple of both contexts"""
    short_context: int
    """tokens per window in most steps"""
    long_context: int
    """tokens per window in the other steps"""
    warmup_steps: int
    long_share: float = 0.15
    """share of the steps at ``long_context``, spread evenly over the run"""
    peak_lr: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    """on matrices; the norms are not decayed"""
    dropout: float = 0.1
    clip_norm: float = 1.0
    """largest norm of the gradient"""

    def learning_rate(self, step: int) -> float:
        """Linear warmup to the peak, then half a cosine down to zero."""
        if step < self.warmup_steps:
            return self.peak_lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.peak_lr * 0.5 * (1.0 + math.cos(math.pi * progress))

    def context(self, step: int) -> int:
        """Tokens per window at this step.

        >>> schedule = RECIPES["kvq-mini"].schedule
        >>> [schedule.context(step) for step in range(8)]
        [1024, 1024, 1024, 1024, 1024, 1024, 4096, 1024]
        """
        long = math.floor((step + 1) * self.long_share) > math.floor(step * self.long_share)
        return self.long_context if long else self.short_context


@dataclass(frozen=True)
class Recipe:
    """A model's shape and the training that fits it."""

    shape: Shape
    schedule: Schedule


RECIPES = {
    "kvq-mini": Recipe(
        Shape(
            vocab_size=8_192, n_layer=4, n_embd=256, n_head=4, n_head_kv=2, n_ff=768, n_ctx=4_096
        ),
        Schedule(
            steps=4_000,
            tokens_per_step=65_536,
            short_context=1_024,
            long_context=4_096,
            warmup_steps=200,
        ),
    ),
    "kvq-tiny": Recipe(
        Shape(
            vocab_size=1_024, n_layer=2, n_embd=128, n_head=2, n_head_kv=1, n_ff=256, n_ctx=1_024
        ),
        Schedule(
            steps=100,
            tokens_per_step=2_048,
            short_context=256,
            long_context=1_024,
            warmup_steps=10,
        ),
    ),
}
"""By ``general.name`` of the file: the embedded model, and a trial of it for a laptop's CPU."""
