"""What was read is found again, from as far back as with f16."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kvquant.checks.budget import Budget
from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.numerics import recall as numbers
from pytest_kvquant.quality.recall import Recalled
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.recall import RecallPoint

ALPHA = 0.01
"""Error of each side, over all distances of all cells."""

FIRST_LOOK = 0.25
"""Share of it for a look after half of the passages; the rest is for all of them."""


def points(
    distances: Sequence[int],
    reference: Recalled,
    cell: Recalled,
    keep: float,
    *,
    cells: int = 1,
    share: float = 1.0,
) -> tuple[RecallPoint, ...]:
    """Judge every distance.

    Args:
        keep: least share of f16's gain that has to be kept.
        cells: of the run, among which chance is corrected for.
        share: of the error, for this look.
    """
    alpha = share * ALPHA / (len(distances) * max(1, cells))
    found = []
    for at, distance in enumerate(distances):
        judged = numbers.judge(reference.gain[:, at], cell.gain[:, at], keep=keep, alpha=alpha)
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


def settled(found: Sequence[RecallPoint]) -> bool:
    """Whether further passages are not needed: every distance passes or fails."""
    return all(one.verdict in {"pass", "fail"} for one in found)


def check_recall(found: Sequence[RecallPoint], keep: float) -> Check:
    """What a passage's second reading gains over its first is kept at every distance."""
    able = [one for one in found if one.verdict != "cannot"]
    text = "; ".join(one.text for one in found)
    if not able:
        return fact(
            "recall",
            "pass",
            f"not judged: f16 itself gains nothing from a repeat {found[0].distance:,} tokens back "
            "or farther: this model cannot recall at that distance",
        )
    verdicts = {one.verdict for one in able}
    verdict = next(word for word in ("fail", "inconclusive", "pass") if word in verdicts)
    return fact(
        "recall",
        verdict,
        f"gain from a repeat, by distance in tokens, of which {keep:.0%} has to be kept: {text}",
        figure=min((one.kept for one in able if one.kept is not None), default=None),
        limit=keep,
    )


@check("recall", title="recall at distance", test="test_recall", group="workloads",
       needs="workloads", order=1,
       budget=Budget("recall", "share", default=0.8, identical=1.0))  # fmt: skip
def recall(subject: Subject) -> Check | None:
    """A passage that was read far back is found again, as with f16.

    Why: a mean over all tokens is made by the last few hundred before each; rows that are lost or
    wrong a thousand tokens back hardly move it, and an agent that has to find a line of a file in
    its context meets just those.

    Healthy: q8_0 keeps 99 % of f16's gain at every distance, 4 bits 95 % and more. Where f16 itself
    gains nothing from a repeat, the model cannot recall at that distance, and nothing is judged.

    A failure means: read the share by distance. A drop from one distance on is a fault of rows
    beyond it (a window, an offset, a block that is not read); an even loss is coarse quantization
    of K.
    """
    found = subject.cell.recall
    return check_recall(found, subject.budgets["recall"]) if found else None
