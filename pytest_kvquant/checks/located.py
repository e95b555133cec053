"""Wrong nodes in, one sentence out: which kernel, in which batch sizes, from which length on.

Every node is judged on its own inputs, so that a wrong one is wrong by itself; where several are,
the one that comes first in the graph is named, and the others are evidence. What is not seen node
by node (a cache operation, a batch size that takes another path) is named by the test that saw it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.kernels import CornerRecord, Examination, NodeFailure

ORDER = (
    "parameters", "mask", "norm", "plain", "rotation", "rope", "write", "attention", "product",
    "softmax",
)  # fmt: skip
"""Operations in the order of the graph."""

KERNELS = {
    "parameters": "positions, scale and other parameters of the graph",
    "mask": "attention mask",
    "norm": "norm of queries or keys",
    "plain": "operation between cache and attention",
    "rotation": "rotation of rows before the cache",
    "rope": "rope",
    "write": "cache write (set-rows)",
    "attention": "attention kernel",
    "product": "matrix product of attention",
    "softmax": "softmax of attention",
}
"""In a sentence."""

ROWS = ("rotation", "norm", "plain")
"""Operations whose nodes count rows (of every head), not query tokens."""

DESTINATION = "is written to other cells"
"""What the oracle says of a write that goes elsewhere."""

SHIFT = "context shift"
"""What the oracle begins with where it speaks of keys that were moved."""

FEW = 8
"""Query tokens of the kernels for decode; prefill begins at four times as many."""

CLEAR = 3.0
"""One side is named where it is off so many times as much as the other."""

OFF = 1e-3
"""Share by which scores or values must be off to name a side."""

_SIDES = re.compile(r"scores off by ([-+][\d.]+)%, values by ([-+][\d.]+)%")
_HEAD = re.compile(r"\bhead (\d+)\b")


class Located(NamedTuple):
    """A kernel, and where it is wrong."""

    operation: str
    """Of :data:`ORDER`; ``quantizer``, ``operations``, ``ladder`` or ``fused``."""
    sentence: str
    """``decode, 2 to 8 query tokens, K side, from cache length 256: attention kernel``."""
    side: str = ""
    """``K``, ``V`` or nothing."""
    tokens: tuple[int, ...] = ()
    """Query tokens of wrong nodes."""
    evidence: tuple[str, ...] = ()
    """What was seen, and how to see it again."""


def locate(cell: Cell) -> Located | None:
    """The kernel that the examination of a cell names; ``None``: it names none."""
    failing = {one.name: one.text for one in cell.checks if one.verdict == "fail"}
    if "quantizer" in failing:
        return Located(
            "quantizer",
            f"{cell.pair}, every batch size: the reference quantizer itself",
            evidence=(failing["quantizer"],),
        )
    found = cell.kernels
    if found is None:
        return None
    for operation in ORDER:
        corners = [one for one in found.corners if one.operation == operation]
        if any(one.failed for one in corners):
            return _node(operation, corners, found)
    return _beside(failing, found)


def _node(operation: str, corners: Sequence[CornerRecord], found: Examination) -> Located:
    wrong = [one for one in corners if one.failed]
    failures = [one for one in found.failures if one.operation == operation]
    lengths = {one.length for one in wrong}
    beside = {one.tokens for one in corners if one.length in lengths}
    seen = [one.text for one in failures[:1]]
    if operation == "parameters" and all(one.text.startswith(SHIFT) for one in failures):
        return Located("shift", "after a context shift: rope of the keys in the cache",
                       evidence=tuple(seen))  # fmt: skip
    if operation == "parameters" and any(DESTINATION in one.text for one in failures):
        operation = "write"  # to other cells than it should: the rows themselves may be right
    tokens = [] if operation in ROWS else sorted({one.tokens for one in wrong})
    side = _side(operation, wrong, failures)
    parts = [
        _path(tokens) if tokens else "",
        _sizes(tokens, beside) if tokens else "",
        f"{side} side" if side else "",
        _heads(failures),
        _from_length(wrong, corners),
    ]
    types = {one.v_type if side == "V" else one.k_type for one in wrong} - {""}
    of = f" for {', '.join(sorted(types))}" if operation == "write" and types else ""
    others = [
        f"also wrong: {KERNELS[name]}"
        for name in ORDER
        if name != operation and any(o.failed for o in found.corners if o.operation == name)
    ]
    again = [f"kvquant reproduce {one.reproducer}" for one in failures if one.reproducer][:1]
    return Located(
        operation,
        ": ".join(filter(None, (", ".join(filter(None, parts)), f"{KERNELS[operation]}{of}"))),
        side,
        tuple(tokens),
        (*seen, *again, *others),
    )


def _beside(failing: dict[str, str], found: Examination) -> Located | None:
    """What no single node shows."""
    if "operations" in failing:
        broken = [one for one in found.scenarios if one.verdict not in ("pass", "unsupported")]
        names = ", ".join(one.title for one in broken[:3])
        return Located("operations", f"after {names}: cache operation", evidence=(
            failing["operations"],))  # fmt: skip
    if "fused" in failing:
        return Located(
            "fused", "only where nodes are not looked at: fused kernels",
            evidence=(failing["fused"],),
        )  # fmt: skip
    if "ladder" in failing:
        return Located(
            "ladder", "in one batch size, outside the nodes of attention: the path of that size",
            evidence=(failing["ladder"],),
        )  # fmt: skip
    return None


def _path(tokens: Sequence[int]) -> str:
    if max(tokens) <= FEW:
        return "decode"
    return "prefill" if min(tokens) >= 4 * FEW else "decode and prefill"


def _sizes(tokens: Sequence[int], beside: Collection[int]) -> str:
    """``2 to 8 query tokens``: where smaller or larger batches beside them are right."""
    if len(tokens) == 1:
        return f"{tokens[0]} query token{'s' if tokens[0] > 1 else ''}"
    if set(tokens) == set(beside):
        return "every batch size"
    between = [one for one in beside if tokens[0] <= one <= tokens[-1]]
    if set(between) == set(tokens):
        return f"{tokens[0]} to {tokens[-1]} query tokens"
    return f"{', '.join(map(str, tokens))} query tokens"


def _side(operation: str, wrong: Sequence[CornerRecord], failures: Sequence[NodeFailure]) -> str:
    if operation == "write":
        sides = {"K" if one.k_type else "V" for one in wrong if one.k_type or one.v_type}
        return sides.pop() if len(sides) == 1 else ""
    named = {_of_text(one.text) for one in failures}
    return named.pop() if operation == "attention" and len(named) == 1 else ""


def _of_text(text: str) -> str:
    """The side whose part of an attention node is off: scores are of K, values of V."""
    if (seen := _SIDES.search(text)) is None:
        return ""
    scores, values = (abs(float(one)) / 100 for one in seen.groups())
    if scores > OFF and scores > CLEAR * values:
        return "K"
    return "V" if values > OFF and values > CLEAR * scores else ""


def _heads(failures: Iterable[NodeFailure]) -> str:
    """The head, where every wrong node names the same one."""
    named = {found[1] for one in failures if (found := _HEAD.search(one.text))}
    return f"head {named.pop()}" if len(named) == 1 else ""


def _from_length(wrong: Sequence[CornerRecord], corners: Sequence[CornerRecord]) -> str:
    """From which length on, where shorter caches in the same batch sizes are right."""
    sizes = {one.tokens for one in wrong}
    right = {one.length for one in corners if one.tokens in sizes and not one.failed}
    least = min(one.length for one in wrong)
    if right and max(right) < least:
        return f"from cache length {max(right)}"
    return ""
