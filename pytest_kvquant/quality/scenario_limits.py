"""How far logits of a scenario may be apart on a healthy build."""

from __future__ import annotations

from collections.abc import Collection
from statistics import median

from pytest_kvquant.quality.batch_noise import FACTOR, allowed, of_sizes, on_cpu, usual
from pytest_kvquant.results.kernels import Examination

NOISE = 10.0
"""A figure within this many times what f16 shows between the same two is noise."""

LADDER_FACTOR = 8.0
"""A scenario's KL against f16 may be so many times that of plain decoding of the same pair: a few
rows of a heavy-tailed figure, and keys that are rounded again when they are shifted."""

LEAST = 2e-4
"""Nats: what a rounding that falls the other way moves in a handful of logits."""

DEVICE_LEAST = 5e-4
"""The same on other devices: f16 on an H100 shows up to 2.3e-4 between slots."""

F16_APART = 5e-3
"""Nats between two ways of computing f16: kernels that sum in f16 and in f32 differ by less than
1e-3 on the models tried."""


OWN_FACTOR = 3.0
"""f16 in one batch size may be so many times as far from the largest as it usually is."""

MOST_APART = 1.5e-2
"""Nats: no model is so sensitive that more is rounding."""


def f16_apart(found: Examination | None) -> float:
    """Nats that f16 may be apart from itself on this model.

    Some models turn the rounding of a sum into more than others: Gemma 3 270M shows 0.0044 between
    a batch of few tokens and one of many, in every size alike, where others show 1e-4. A batch size
    that is wrong stands out from the others; that all are wrong is for exact arithmetic to see.
    """
    own = [one.own for one in (found.rungs if found is not None else ()) if one.own]
    usually = OWN_FACTOR * median(own) if own else 0.0
    return max(F16_APART, min(MOST_APART, usually))


def own_limit(
    found: Examination, reference: Examination | None, name: str, sizes: Collection[int]
) -> float:
    """Nats between logits of one scenario that should be equal.

    f16 in the same scenario says best what is noise. f16 itself is held against its own ladder, on
    a GPU; on a CPU the same tokens over the same cells give the same sums, but for a model that
    shows every change of kernels (:func:`f16_apart`): slots decode in batches of other sizes. GPUs
    have kernels for quantized rows and few query tokens where f16 has one for all: there the pair's
    own ladder, which is judged by itself, says what another batch size may change.

    Args:
        reference: of f16; ``None`` where that is what is judged.
        sizes: tokens of the batches that the logits come from.
    """
    played = reference.scenarios if reference is not None else ()
    control = next((one for one in played if one.name == name), None)
    least = LEAST if on_cpu(found) else DEVICE_LEAST
    if control is None:
        same_sums = on_cpu(found) and f16_apart(found) <= F16_APART
        noise = 0.0 if same_sums else of_sizes(found, sizes)
        return max(least, usual(found) / 10, min(f16_apart(found), allowed(noise, 0.0)))
    noise = control.own or 0.0
    elsewhere = (
        0.0 if on_cpu(found) else max(allowed(noise, usual(found)), FACTOR * of_sizes(found, sizes))
    )
    return max(least, NOISE * noise, usual(found) / 10, elsewhere)


def reference_limit(found: Examination) -> float:
    """Nats between the pair and f16 in the same steps."""
    return max(10 * LEAST, LADDER_FACTOR * usual(found))
