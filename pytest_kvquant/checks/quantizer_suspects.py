"""The kernel that quantizes and stores rows, suspected by what a side and path hold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from pytest_kvquant.quality.effective_types import numbered
from pytest_kvquant.results.diagnosis import (
    LayerFigures,
    PatternRecord,
    Side,
    Suspect,
)


def quantizer_suspects(figures: Sequence[LayerFigures]) -> tuple[Suspect, ...]:
    """One suspect per side, or one for both where they show the same."""
    found: dict[Side, list[LayerFigures]] = {"K": [], "V": []}
    for one in figures:
        if (one.clean and (one.wrong or one.pattern)) or (not one.clean and one.pattern):
            found[one.side].append(one)
    for one in _one_sided(figures):
        if not found[one.side]:
            found[one.side].append(one)
    if found["K"] and found["V"] and _alike(found["K"], found["V"]):
        return (_quantizer("both", found["K"]),)
    return tuple(_quantizer(side, wrong) for side, wrong in found.items() if wrong)


def _one_sided(figures: Sequence[LayerFigures]) -> list[LayerFigures]:
    """The first later layer where one side strays and the other does not.

    Attention that reads wrongly disturbs K and V of the next layer alike.
    """
    for path in ("prefill", "decode"):
        for layer in dict.fromkeys(one.layer for one in figures if not one.clean):
            here = [one for one in figures if one.layer == layer and one.path == path]
            wrong = [one for one in here if one.wrong]
            if not wrong:
                continue
            quiet = [one for one in here if one.expected and one.nmse < 2 * one.expected]
            far = wrong[0].expected and wrong[0].nmse > 10 * wrong[0].expected
            if len(wrong) == len(quiet) == 1 and far:
                return wrong
            break
    return []


def _alike(ours: Sequence[LayerFigures], theirs: Sequence[LayerFigures]) -> bool:
    def shown(figures: Sequence[LayerFigures]) -> object:
        return (
            {(one.path, one.layer) for one in figures},
            figures[0].pattern and (figures[0].pattern.holds, figures[0].pattern.value),
        )

    return shown(ours) == shown(theirs)


def _quantizer(side: Literal["K", "V", "both"], wrong: Sequence[LayerFigures]) -> Suspect:
    first = next((one for one in wrong if one.clean and one.pattern), wrong[0])
    paths = {one.path for one in wrong}
    path: Literal["prefill", "decode", "both"] = "both" if len(paths) == 2 else first.path
    layers = tuple(dict.fromkeys(one.layer for one in wrong))
    pattern = first.pattern
    rows = "K and V rows" if side == "both" else f"{side} rows"
    what = _holds(pattern, first) if pattern else "differ from the reference quantizer"
    where = _where(pattern, first) if pattern else ""
    when = "by both paths" if path == "both" else f"by {path} only"
    many = pattern is not None and path != "decode" and pattern.first > first.first
    hint = f" with more than {first.pattern.first} tokens" if many and first.pattern else ""
    clear = first.pattern is not None and first.pattern.holds != "other"
    if first.bound is not None and first.nmse > 10 * first.bound:
        clear = True
    return Suspect(
        kernel="quantizer",
        side=side,
        path=path,
        layers=layers,
        confidence="high" if clear else "medium",
        sentence=(
            f"{rows} of {_layers(layers)} {what}{where}, {when}: look at set-rows for "
            f"{first.type}{hint}."
        ),
        pattern=pattern,
    )


def _holds(pattern: PatternRecord, figures: LayerFigures) -> str:
    value = pattern.value
    if pattern.holds == "rotation" and value == 1:
        return f"are not rotated (elsewhere by a Hadamard matrix of {figures.rotation})"
    if pattern.holds == "scaled" and isinstance(value, float) and abs(value + 1) < 0.05:
        return "have the opposite sign"
    return {
        "zero": "are zero",
        "scaled": f"are {value} times the reference quantizer's",
        "head": f"hold what belongs {_away('head', value)}",
        "block": f"hold what belongs {_away('block', value)}",
        "position": f"hold what belongs {_away('position', value)}",
        "rotation": f"are rotated by a Hadamard matrix of {value}, and nowhere else",
        "type": f"are quantized as {value}",
        "other": "differ from the reference quantizer",
    }[pattern.holds]


def _away(what: str, value: float | str | None) -> str:
    steps = int(value) if isinstance(value, (int, float)) else 0
    plural = "" if abs(steps) == 1 else "s"
    return f"{abs(steps)} {what}{plural} {'further' if steps > 0 else 'back'}"


def _where(pattern: PatternRecord, figures: LayerFigures) -> str:
    """Which heads, blocks and positions, as far as it is not all of them."""
    parts = []
    every = figures.heads * figures.blocks
    steps = {after - before for before, after in itertools.pairwise(pattern.units)}
    if len(pattern.units) < every:
        per_head = len(pattern.heads) * figures.blocks == len(pattern.units)
        if len(steps) == 1 and min(steps) > 1 and len(pattern.units) * min(steps) >= every - 1:
            parts.append(f"in every {_ordinal(min(steps))} block")
        elif per_head and figures.heads > 1:
            parts.append(f"in {numbered('head', pattern.heads)}")
        else:
            heads = f" of {numbered('head', pattern.heads)}" if figures.heads > 1 else ""
            parts.append(f"in {numbered('block', pattern.blocks)}{heads}")
    if pattern.first > figures.first and pattern.last == figures.last:
        parts.append(f"from position {pattern.first} on")
    elif pattern.first > figures.first or pattern.last < figures.last:
        parts.append(f"at positions {pattern.first} to {pattern.last}")
    if pattern.share < 0.9:
        parts.append(f"in {100 * pattern.share:.0f} % of the rows")
    return "".join(f" {part}" for part in parts)


def _layers(numbers: Sequence[int]) -> str:
    return numbered("layer", numbers)


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
