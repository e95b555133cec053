"""What was read is found again, from as far back as with f16."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kvquant.checks.facts import _check
from pytest_kvquant.numerics import recall as numbers
from pytest_kvquant.quality.recall import Recalled
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.recall import RecallPoint

ALPHA = 0.01
"""Error of each side, over all distances of a cell."""


def points(
    distances: Sequence[int], reference: Recalled, cell: Recalled, keep: float
) -> tuple[RecallPoint, ...]:
    """Judge every distance.

    Args:
        keep: least share of f16's gain that has to be kept.
    """
    found = []
    for at, distance in enumerate(distances):
        judged = numbers.judge(
            reference.gain[:, at], cell.gain[:, at], keep=keep, alpha=ALPHA / len(distances)
        )
        found.append(
            RecallPoint(
                distance=distance,
                passages=len(cell.gain),
                reference=float(reference.gain[:, at].mean()),
                gain=float(cell.gain[:, at].mean()),
                hits_reference=float(reference.hits[:, at].mean()),
                hits=float(cell.hits[:, at].mean()),
                **judged._asdict(),
            )
        )
    return tuple(found)


def check_recall(found: Sequence[RecallPoint], keep: float) -> Check:
    """What a passage's second reading gains over its first is kept at every distance."""
    able = [one for one in found if one.verdict != "cannot"]
    text = "; ".join(one.text for one in found)
    if not able:
        return _check(
            "recall",
            "inconclusive",
            f"f16 itself gains nothing from a repeat {found[0].distance:,} tokens back or "
            "farther: this model cannot recall, and nothing is judged",
        )
    verdicts = {one.verdict for one in able}
    verdict = next(word for word in ("fail", "inconclusive", "pass") if word in verdicts)
    return _check(
        "recall",
        verdict,
        f"gain from a repeat, by distance in tokens, of which {keep:.0%} has to be kept: {text}",
        figure=min((one.kept for one in able if one.kept is not None), default=None),
        limit=keep,
    )
