"""What the first layer stores, against the reference quantizer."""

from __future__ import annotations

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact, unseen
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.matrix import REFERENCE
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.diagnosis import ALLOWED, Diagnosis


def check_contents(diagnosis: Diagnosis | None) -> Check:
    """The first layer holds what the type's reference quantizer makes of f16's rows.

    The bound is a multiple of what the rounding of the source to f16 explains for this type.

    Args:
        diagnosis: ``None`` for f16/f16 itself.
    """
    if diagnosis is None:
        return fact("contents", "pass", "these are the rows that others are compared with")
    first = [one for one in diagnosis.figures if one.clean and one.rotation is not None]
    figure = max((one.nmse / one.explained for one in first), default=None)
    verdict = "pass" if figure is not None else "inconclusive"
    if diagnosis.verdict == "suspect":
        verdict = "fail"
    text = diagnosis.sentence
    if verdict == "inconclusive" and diagnosis.against:
        text = diagnosis.against[0]
    return Check(name="contents", verdict=verdict, text=text, figure=figure, limit=ALLOWED)


@check("contents", title="cache contents", test="test_cache_contents", group="cache",
       needs="contents", order=1, unseen="inconclusive")  # fmt: skip
def contents(subject: Subject) -> Check:
    """The first layer holds f16's rows as the library's reference quantizer writes them.

    Why: K and V of the first layer do not depend on the cache types, so what is stored there is
    known beforehand, row by row.

    Healthy: 0 to 2 times what the rounding of the source explains.

    A failure means: the kernel that quantizes and stores rows is wrong; the text says on which
    side, by which path, which heads and rows.
    """
    if subject.cell.diagnosis is None and subject.pair != REFERENCE:
        return unseen("contents", "what the first layer stores")
    return check_contents(subject.cell.diagnosis)
