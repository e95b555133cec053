"""What a run says of its own time: what early decisions saved, and what was not decoding."""

from __future__ import annotations

from pytest_kvquant import format
from pytest_kvquant.results.cell import Timing
from pytest_kvquant.results.result import Result

WORTH_A_LINE = 0.1
"""Share of the time that may go into other things than decoding before it is said."""

NAMED = 3
"""Parts that are named at most; those under ``SMALL`` of the wall time are not."""

SMALL = 0.01

DECODE = "decode"

OPENING = ("start", "library", "model", "context")
"""Parts of a cell that it takes once, however many chunks it draws."""


def time_lines(result: Result) -> list[str]:
    """Lines for the terminal: none, one or two."""
    return [line for line in (saved_line(result), rest_line(result)) if line]


def saved_line(result: Result) -> str:
    """After how many chunks cells were decided, and the time that the others would have taken."""
    cap = result.settings.cap
    drawn = [
        (len(cell.digests), _drawing(cell.timing))
        for cell in result.cells
        if cell.gates and cell.digests and cell.timing is not None
    ]
    early = [(chunks, seconds) for chunks, seconds in drawn if chunks < cap]
    if not result.settings.early or not early:
        return ""
    counts = sorted(chunks for chunks, _ in early)
    span = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    cells = "1 cell was" if len(early) == 1 else f"{len(early)} of {len(drawn)} cells were"
    saved = sum((cap - chunks) * seconds / chunks for chunks, seconds in early)
    return (
        f"{cells} decided after {span} of at most {cap} chunks: about {format.seconds(saved)} saved"
    )


def _drawing(timing: Timing) -> float:
    """Seconds that grow with the chunks."""
    return max(0.0, timing.prefill - sum(timing.parts.get(part, 0.0) for part in OPENING))


def rest_line(result: Result) -> str:
    """What else than decoding the time went into, where that is more than a tenth of it."""
    timing = result.timing
    if timing is None or not timing.wall:
        return ""
    rest = 1 - timing.parts.get(DECODE, 0.0) / timing.wall
    if rest <= WORTH_A_LINE:
        return ""
    shares = {
        part: seconds / timing.wall
        for part, seconds in timing.parts.items()
        if part != DECODE and seconds > SMALL * timing.wall
    }
    most = sorted(shares, key=lambda part: -shares[part])[:NAMED]
    named = ", ".join(f"{part} {shares[part]:.0%}" for part in most)
    return f"{rest:.0%} of {format.seconds(timing.wall)} was not decoding: {named}"
