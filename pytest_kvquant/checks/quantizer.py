"""The quantizers themselves, against arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.quantizer import QuantizerRecord


def check_quantizers(found: Sequence[QuantizerRecord]) -> Check:
    """Every type of a pair keeps to the rules that hold for it."""
    parts = [f"{one.type}: {finding.text}" for one in found for finding in one.findings]
    if parts:
        return fact("quantizer", "fail", "; ".join(parts))
    problems = [f"{one.type}: {one.problem}" for one in found if one.problem is not None]
    if problems:
        return fact("quantizer", "inconclusive", "; ".join(problems))
    return fact("quantizer", "pass", "; ".join(map(_told, found)))


def _told(one: QuantizerRecord) -> str:
    figures = one.figures
    assert figures is not None
    more = f", {one.gained:.1f} dB better than accepted" if one.gained else ""
    unknown = "" if one.known else ", no accepted figures of this type"
    return (
        f"{one.type}: {figures.bits:g} bits, {figures.snr:.1f} dB, {figures.to_shannon:.1f} dB "
        f"under Shannon's bound{more}{unknown}"
    )


@check("quantizer", title="quantizer", test="test_quantizer", group="cache",
       needs="prefill", order=9)  # fmt: skip
def quantizer(subject: Subject) -> Check | None:
    """Each type of the pair rounds as well as its bits allow, evenly, and as it was accepted.

    Why: kernels are compared with the library's own reference quantizer, so a fault in that one
    would bless itself. Seeded rows go through it and back and are held against Shannon's bound, the
    best scalar quantizer, symmetries of position, block, sign and scale, and accepted figures.

    Healthy: 5.7 dB under Shannon's bound for q8_0 and q4_0, 4.1 for turbo3, 8.1 for turbo4.

    A failure means: from_float_ref or to_float of this type is wrong, or it is another quantizer
    than was accepted; the text says by which rule.
    """
    return check_quantizers(subject.cell.quantizers) if subject.cell.quantizers else None
