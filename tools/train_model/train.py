"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import Decoder
from .recipe import Schedule

REPORTS = 20
"""progress lines of a run, about"""


def train(
    model: Decoder,
    stream: Tensor,
    schedule: Schedule,
    *,
    seed: int,
    report: Callable[[str], None] = print,
) -> list[float]:
    """Train in place, on the model's device; return the loss of each step, in nats per token.

    ``stream`` is int64 ``[tokens]``. A CUDA device computes in bfloat16, any other in float32.
    """
    device = model.token_embd.weight.device
    stream = stream.to(device)
    windows = torch.Generator().manual_seed(seed)
    optimizer = make_optimizer(model, schedule)
    every = max(1, schedule.steps // REPORTS)
    losses: list[Tensor] = []
    model.train()
    started = time.monotonic()
    for step in range(schedule.steps):
        lr = schedule.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        context = schedule.context(step)
        batch = sample(stream, schedule.tokens_per_step // context, context, windows)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = next_token_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
        optimizer.step()
        losses.append(loss.detach())
        if step % every == 0 or step == schedule.steps - 1:
            speed = (step + 1) * schedule.tokens_per_step / (time.monotonic() - started)
            report(f"step {step:5d}  loss {loss.item():.4f}  lr {lr:.2e}  {speed:,.0f} tok/s")
    return [float(loss) for loss in losses]


def make_optimizer(model: Decoder, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW that decays the matrices and leaves the norms alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    norms = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": schedule.weight_decay},
            {"params": norms, "weight_decay": 0.0},
        ],
        betas=schedule.betas,
    )


def sample(stream: Tensor, rows: int, context: int, generator: torch.Generator) -> Tensor:
    """Cut random windows: int64 ``[rows, context + 1]``, the last column a target only."""
    room = stream.numel() - context
    if room < 1:
        raise ValueError(f"the corpus has {stream.numel()} tokens; a window takes {context + 1}")
    starts = torch.randint(room, (rows, 1), generator=generator)
    return stream[(starts + torch.arange(context + 1)).to(stream.device)]


def next_token_loss(model: Decoder, batch: Tensor) -> Tensor:
    """Mean cross-entropy of each next token, in nats; ``batch`` is ``[rows, context + 1]``."""
    logits: Tensor = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
