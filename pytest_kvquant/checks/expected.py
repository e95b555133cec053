"""Whether a cell that is declared not to be measurable still is not."""

from __future__ import annotations

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.declared import gone_verdicts
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.results.cell import Check


@check("expected", title="as declared", test="test_as_declared", group="identity",
       needs="prefill", order=9)  # fmt: skip
def expected(subject: Subject) -> Check | None:
    """A cell that ``[expect]`` declares to crash, or not to be supported, still does not work.

    Why: a declaration that outlives its fault would hide the next one.

    A failure means: the fault is gone, and the declaration can be removed.
    """
    gone = gone_verdicts(subject.declared)
    return fact("expected", "fail", "; ".join(gone)) if gone else None
