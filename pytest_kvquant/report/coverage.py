"""What the kernels were examined on: corners that ran, failed, are unsupported, or are missing.

A corner is an operation under conditions: pair, head sizes, query tokens, cache length, mask,
backend. What is not listed was not covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pytest_kvquant.results.kernels import CornerRecord
from pytest_kvquant.results.result import Result

MANY = 64
"""Query tokens beyond which batches are one class: the largest size of the ladder."""


class CoveredCorner(NamedTuple):
    """A corner of attention, of one pair."""

    pair: str
    heads: str
    tokens: str
    length: str
    mask: str
    backend: str

    def __str__(self) -> str:
        return (
            f"{self.pair}, heads {self.heads}, {self.tokens} query tokens, {self.length} cells, "
            f"{self.mask}, {self.backend}"
        )


def corners(result: Result) -> Iterator[tuple[CoveredCorner, bool]]:
    """Corners of attention that ran, and whether all of their nodes are right."""
    for cell in result.cells:
        for one in cell.kernels.corners if cell.kernels else ():
            if one.operation == "attention":
                yield _corner(cell.pair, one), not one.failed


def _corner(pair: str, one: CornerRecord) -> CoveredCorner:
    heads = f"{one.head_k}/{one.head_v}x{one.group}"
    length = f"up to {one.length}"
    return CoveredCorner(pair, heads, _tokens(one.tokens), length, one.mask, one.backend)


def _tokens(count: int) -> str:
    """Sizes of the ladder by themselves, larger batches together."""
    return str(count) if count <= MANY else "many"


def compare(before: Result, after: Result) -> tuple[str, int]:
    """Corners that one result has and the other lacks, in words, and how many the second lacks."""
    ours, theirs = ({corner for corner, _ in corners(one)} for one in (before, after))
    lacking, further = sorted(ours - theirs), sorted(theirs - ours)
    lines = [f"{len(ours & theirs)} corners in both"]
    for title, found in (("only in the first", lacking), ("only in the second", further)):
        if found:
            lines.append(f"{len(found)} {title}:")
            lines += [f"  {corner}" for corner in found]
    return "\n".join(lines) + "\n", len(lacking)


def in_lines(result: Result) -> list[str]:
    """Three lines for the terminal: nodes and corners, operations on caches, what is left out."""
    examined = [cell.kernels for cell in result.cells if cell.kernels is not None]
    if not examined:
        return []
    every = [one for found in examined for one in found.corners]
    nodes, wrong = sum(one.nodes for one in every), sum(one.failed for one in every)
    sizes = {_tokens(one.tokens) for one in every if one.operation == "attention"}
    lengths = {one.length for one in every if one.operation == "attention"}
    heads = {f"{one.head_k}/{one.head_v}" for one in every if one.operation == "attention"}
    deepest = f"up to {max(lengths):,} cells" if lengths else "no cells"
    played = [one for found in examined for one in found.scenarios]
    failed = sorted({one.name for one in played if one.verdict not in ("pass", "unsupported")})
    cannot = sorted({one.name for one in played if one.verdict == "unsupported"})
    left = dict.fromkeys(line for found in examined for line in found.left_out)
    unknown = sorted({name for found in examined for name in found.unknown})
    said = f"kernels ({examined[0].level}): {nodes:,} nodes against exact arithmetic, {wrong} wrong"
    lines = [
        f"{said}; {len(set(corners(result)))} corners of attention: {len(sizes)} batch sizes, "
        f"{deepest}, heads {', '.join(sorted(heads))}",
        f"cache operations: {len({one.name for one in played})} scenarios"
        + (f"; fail: {', '.join(failed)}" if failed else "")
        + (f"; unsupported: {', '.join(cannot)}" if cannot else ""),
    ]
    missing = [*left, *(f"the operation {name}" for name in unknown)]
    lines.append(f"not covered: {'; '.join(missing)}" if missing else "not covered: nothing known")
    return lines
