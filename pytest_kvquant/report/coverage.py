"""What the kernels were examined on, corner by corner; what is not listed was not covered.

A corner is an operation under conditions: pair, model, head sizes, query tokens, cache length,
mask, backend; or a scenario of cache operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pytest_kvquant.report.coverage_map import coverage_map
from pytest_kvquant.results.kernels import CornerRecord, Examination
from pytest_kvquant.results.result import Result

MANY = 64
"""Query tokens beyond which batches are one class: the largest size of the ladder."""


class CoveredCorner(NamedTuple):
    """A corner of one pair."""

    pair: str
    model: str
    """A member of the zoo; empty for the run's own model."""
    operation: str
    conditions: str
    """In words; empty for scenarios."""

    def __str__(self) -> str:
        on = f" on {self.model}" if self.model else ""
        return f"{self.pair}{on}: {self.operation}" + (
            f", {self.conditions}" if self.conditions else ""
        )


def corners(result: Result) -> Iterator[tuple[CoveredCorner, bool]]:
    """Corners that ran, and whether all of their nodes are right."""
    for cell in result.cells:
        yield from _examined(cell.pair, "", cell.kernels)
    for member in result.zoo:
        yield from _examined(member.pair, member.member, member.kernels)


def _examined(
    pair: str, model: str, found: Examination | None
) -> Iterator[tuple[CoveredCorner, bool]]:
    if found is None:
        return
    for one in found.judged:
        yield CoveredCorner(pair, model, one.operation, _conditions(one)), not one.failed
    for played in found.scenarios:
        if played.verdict != "unsupported":
            name = f"operations.{played.name}"
            yield CoveredCorner(pair, model, name, ""), played.verdict == "pass"


def _conditions(one: CornerRecord) -> str:
    parts = [f"types {one.k_type}/{one.v_type}"] if one.k_type or one.v_type else []
    parts += [f"heads {one.head_k}/{one.head_v}x{one.group}"] if one.group else []
    parts += [f"{_tokens(one.tokens)} query tokens"] if one.tokens else []
    parts += [f"up to {one.length} cells"] if one.length else []
    return ", ".join(filter(None, [*parts, one.mask, one.backend]))


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


def _elsewhere(examined: Iterable[Examination]) -> list[str]:
    """What pairs of a type share out is left out by each of them: told once, as a range."""
    found = [one.elsewhere for one in examined if one.elsewhere is not None]
    if not found:
        return []
    low, high = min(found)[0], max(found)[0]
    span = f"{low} to {high}" if low != high else f"{low}"
    return [f"{span} of {found[0][1]} scenarios, which other pairs of a type play"]


def in_lines(result: Result) -> list[str]:
    """Three lines for the terminal: nodes and corners, operations on caches, what is left out."""
    found = [*(one.kernels for one in result.cells), *(one.kernels for one in result.zoo)]
    examined = [one for one in found if one is not None]
    drawn = coverage_map(result)
    if not examined or drawn is None:
        return []
    every = [corner for one in examined for corner in one.judged]
    nodes, wrong = sum(one.nodes for one in every), sum(one.failed for one in every)
    attention = [one for one in every if one.operation == "attention"]
    sizes = {_tokens(one.tokens) for one in attention}
    lengths = {one.length for one in attention}
    heads = {(one.head_k, one.head_v) for one in attention}
    deepest = f"up to {max(lengths):,} cells" if lengths else "no cells"
    played = [scenario for one in examined for scenario in one.scenarios]
    failed = sorted({one.name for one in played if one.broken and not one.known})
    known = sorted({one.name for one in played if one.known})
    cannot = sorted({one.name for one in played if one.verdict == "unsupported"})
    left = [*dict.fromkeys(line for one in examined for line in one.left_out)]
    unknown = sorted({name for one in examined for name in one.unknown})
    said = f"kernels ({examined[0].level}): {nodes:,} nodes against exact arithmetic, {wrong} wrong"
    shown = ", ".join(f"{k}/{v}" for k, v in sorted(heads))
    operations = f"cache operations: {len({one.name for one in played})} scenarios"
    operations_unknown = (f"the operation {name}" for name in unknown)
    missing = [*left, *_elsewhere(examined), *operations_unknown]
    return [
        f"{said}; {len(attention)} corners of attention: {len(sizes)} batch sizes, {deepest}, "
        f"heads {shown}",
        operations
        + (f"; fail: {', '.join(failed)}" if failed else "")
        + (f"; known faults of llama.cpp: {', '.join(known)}" if known else "")
        + (f"; unsupported: {', '.join(cannot)}" if cannot else ""),
        f"not covered: {drawn.count('not covered')} of "
        f"{len(drawn.columns) * len(drawn.lines)} corners of the map"
        + (f"; {'; '.join(missing)}" if missing else ""),
    ]
