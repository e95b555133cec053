"""How far two batch sizes of a healthy pair are apart, from what f16 shows on the same backend.

f16 in batches of another size gives other logits. On a CPU only attention does, whose kernels of
few and of many tokens sum values of f16 differently. On GPUs every projection does, too. That is
measured, on f16's own ladder, for the model and the device at hand. A quantized pair has the noise
of projections, and more: a value whose rounding falls the other way moves by a whole step s. Noise
of standard deviation σ turns E|δ|/s = √(2/π)·σ/s of the values, and each costs s²: a squared error
of √(2/π)·σ·s, where f16 has σ² and quantization itself s²/12. Divergence being in proportion to
squared error, the pair's share of it is at most √(2/π)·√12 times the geometric mean of f16's noise
and the pair's own KL.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from statistics import median

from pytest_kvquant.numerics.buffers import of_processor
from pytest_kvquant.results.kernels import Examination

FACTOR = 5.0
"""A batch size may differ by so many times what f16 shows in it: a mean over a few tokens."""

TURNED = 3.0 * math.sqrt(2 / math.pi) * math.sqrt(12.0)
"""Three times what roundings that fall the other way bring, of the geometric mean."""

FLIPPED_SHARE = 0.45
"""Two batch sizes may differ by this share of what the types cost: where they take another sum of a
rotation, whose last bits differ, some values are rounded the other way. Seen on healthy cells: up
to 0.34 (Gemma 3 270M, q8_0/f16); a planted 5 % on a feed-forward of 3 tokens shows 0.66."""


def on_cpu(found: Examination) -> bool:
    """Whether the processor computed all that was judged."""
    return all(of_processor(one.backend) for one in found.corners)


def allowed(noise: float, usual: float) -> float:
    """Nats between two batch sizes of a pair on a GPU.

    Args:
        noise: of f16 between the same two, nats.
        usual: the pair's own mean KL against f16, nats.
    """
    return FACTOR * noise + TURNED * math.sqrt(max(noise, 0.0) * max(usual, 0.0))


def of_rung(found: Examination | None, depth: int, tokens: int) -> float:
    """What f16 shows in this batch size, or usually: one size of few tokens is a single draw."""
    rungs = found.rungs if found is not None else ()
    own = {(one.depth, one.tokens): one.own for one in rungs if one.own is not None}
    return max(own.get((depth, tokens), 0.0), median(own.values()) if own else 0.0)


def of_sizes(found: Examination | None, sizes: Collection[int]) -> float:
    """The most that f16 shows in the rungs that are nearest to these batch sizes."""
    rungs = [one for one in (found.rungs if found is not None else ()) if one.own is not None]
    if not rungs or not sizes:
        return 0.0

    def apart(tokens: int, size: int) -> float:
        return abs(math.log(tokens / size))

    nearest = {min((one.tokens for one in rungs), key=lambda n: apart(n, size)) for size in sizes}
    return max(one.own or 0.0 for one in rungs if one.tokens in nearest)


def of_pair(
    found: Examination, reference: Examination | None, depth: int, tokens: int, turned: float
) -> float:
    """Nats that a healthy pair may be apart in this batch size, no budget being involved.

    Args:
        reference: of f16.
        turned: the KL whose roundings may fall the other way, see :func:`allowed`; 0: none may.
    """
    noise = of_rung(reference, depth, tokens)
    return max(FLIPPED_SHARE * median_of_large(found), allowed(noise, turned))


def median_of_large(found: Examination) -> float:
    """The pair's KL against f16 in rungs of 16 tokens or more, their median: one wrong batch size
    does not make room for itself."""
    figures = [one.reference for one in found.rungs if one.reference is not None]
    large = [one.reference for one in found.rungs if one.reference is not None and one.tokens >= 16]
    return median(large or figures) if figures else 0.0


def usual(found: Examination) -> float:
    """The pair's KL against f16 by plain decoding: the largest of a rung of 16 tokens or more."""
    figures = [one.reference for one in found.rungs if one.reference is not None]
    large = [one.reference for one in found.rungs if one.reference is not None and one.tokens >= 16]
    return max(large or figures, default=0.0)
