"""How far logits of a scenario may be apart on a healthy build."""

from __future__ import annotations

from collections.abc import Collection

from pytest_kvquant.quality.batch_noise import allowed, of_sizes, on_cpu, usual
from pytest_kvquant.results.kernels import Examination

NOISE = 10.0
"""A figure within this many times what f16 shows between the same two is noise."""

LADDER_FACTOR = 8.0
"""A scenario's KL against f16 may be so many times that of plain decoding of the same pair: a few
rows of a heavy-tailed figure, and keys that are rounded again when they are shifted."""

LEAST = 2e-4
"""Nats: what a rounding that falls the other way moves in a handful of logits. GPUs show more."""

F16_APART = 5e-3
"""Nats between two ways of computing f16: kernels that sum in f16 and in f32 differ by less than
1e-3 on the models tried."""


def own_limit(
    found: Examination, reference: Examination | None, name: str, sizes: Collection[int]
) -> float:
    """Nats between logits of one scenario that should be equal.

    f16 in the same scenario says best what is noise. f16 itself is held against its own ladder, on
    a GPU: on a CPU the same tokens over the same cells give the same sums.

    Args:
        reference: of f16; ``None`` where that is what is judged.
        sizes: tokens of the batches that the logits come from.
    """
    played = reference.scenarios if reference is not None else ()
    control = next((one for one in played if one.name == name), None)
    if control is None:
        noise = 0.0 if on_cpu(found) else of_sizes(found, sizes)
        return max(LEAST, usual(found) / 10, min(F16_APART, allowed(noise, 0.0)))
    noise = control.own or 0.0
    elsewhere = 0.0 if on_cpu(found) else allowed(noise, usual(found))
    return max(LEAST, NOISE * noise, usual(found) / 10, elsewhere)


def reference_limit(found: Examination) -> float:
    """Nats between the pair and f16 in the same steps."""
    return max(10 * LEAST, LADDER_FACTOR * usual(found))
