"""A cell on further texts: code, conversations, tool calls, what f16 writes itself."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kvquant.checks.budget import Budgets
from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact
from pytest_kvquant.checks.family import settled
from pytest_kvquant.checks.judging import judge
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.numerics.evidence import Evidence
from pytest_kvquant.numerics.metrics import quality
from pytest_kvquant.numerics.rules import Rules
from pytest_kvquant.results.cell import Check
from pytest_kvquant.results.gate import Gate
from pytest_kvquant.results.texts import TextFigures, TextVerdict


def figures(
    corpus: str, evidence: Evidence, budgets: Budgets, rules: Rules, figures_in_run: int
) -> TextFigures:
    """Judge a cell on one text by the gates of the prefill path.

    Args:
        figures_in_run: gated figures of the run, those of all texts of all cells included: a
            failing gate counts where its evidence is enough among so many.
    """
    if not evidence.finite:
        return TextFigures(corpus=corpus, verdict="non-finite")
    gates = judge(evidence, budgets, rules)
    verdict: TextVerdict = "pass"
    if any(gate.verdict == "fail" and _stands(gate, figures_in_run) for gate in gates):
        verdict = "fail"
    elif any(gate.verdict != "pass" for gate in gates):
        verdict = "inconclusive"
    return TextFigures(
        corpus=corpus,
        verdict=verdict,
        gates=gates,
        quality=quality(evidence.tokens()),
        kl=tuple(evidence.per_chunk().kl.tolist()),
    )


def is_settled(evidence: Evidence, budgets: Budgets, rules: Rules, figures_in_run: int) -> bool:
    """Whether more chunks could no longer change the verdict."""
    return all(settled(gate, figures_in_run) for gate in judge(evidence, budgets, rules))


def check_texts(found: Sequence[TextFigures]) -> Check:
    """The gates of every further text, in one verdict."""
    verdicts = {"fail" if one.verdict == "non-finite" else one.verdict for one in found}
    verdict = next(word for word in ("fail", "inconclusive", "pass") if word in verdicts)
    known = [one.quality.kl_mean for one in found if one.quality is not None]
    return fact(
        "texts", verdict, "; ".join(one.text for one in found), figure=max(known, default=None)
    )


def _stands(gate: Gate, figures_in_run: int) -> bool:

    return gate.p_value <= gate.alpha / figures_in_run


@check("texts", title="further texts", test="test_texts", group="workloads", needs="workloads",
       order=2)  # fmt: skip
def texts(subject: Subject) -> Check | None:
    """On every further text the gates of the prefill path are within their budgets.

    Why: encyclopedia prose is not what a model meets at work. Code, JSON and a model's own output
    have other tokens, other repetitions, and rows of K with other outliers.

    Healthy: KL on code and on tool calls is of the size of that on prose; on what f16 writes at
    temperature 0 it is a fraction of it.

    A failure means: the pair is fit for some work and not for this; the rows by text say which.
    """
    found = subject.cell.texts
    return check_texts(found) if found else None
