"""A fault that some chunks are without: which cost what they must, and which many times that."""

from __future__ import annotations

from pytest_kvquant.format import factor
from pytest_kvquant.results.cell import Cell

AS_IT_MUST = 1.3
"""Times its healthy KL that a single chunk may cost, or at least the inverse; seen on healthy
builds: 0.92 to 1.08, Gemma 0.75 to 1.25."""

BEYOND = 3.0
"""Times from which on a chunk is plainly another one."""


def uneven(cell: Cell) -> str:
    """What single chunks say, in words; empty: nothing, they are all alike."""
    if cell.healthy is None:
        return ""
    pairs = zip(cell.per_chunk.get("kl", ()), cell.healthy.per_chunk, strict=False)
    times = [ours / theirs if theirs > 0 else 1.0 for ours, theirs in pairs]
    right = [at for at, one in enumerate(times) if 1 / AS_IT_MUST <= one <= AS_IT_MUST]
    wrong = [at for at, one in enumerate(times) if one >= BEYOND]
    if not right or not wrong:
        return ""
    worst = factor(max(times[at] for at in wrong))
    return (
        f"{_listed(right)} as healthy ones, {_listed(wrong)} up to {worst} times that: it hangs on "
        "the slot of a batch, on its text, or on what came before"
    )


def _listed(chunks: list[int]) -> str:
    """``chunk 0 costs``, ``chunks 1, 2, 3 and 9 more cost``."""
    named = ", ".join(map(str, chunks[:3]))
    more = f" and {len(chunks) - 3} more" if len(chunks) > 3 else ""
    return f"chunk {named} costs" if len(chunks) == 1 else f"chunks {named}{more} cost"
