"""The cache holds what was asked for, or what the configuration expects instead."""

from __future__ import annotations

import re

from pytest_kvquant.checks.declaration import check
from pytest_kvquant.checks.facts import fact, unseen
from pytest_kvquant.checks.subject import Subject
from pytest_kvquant.quality.effective_types import Explanation
from pytest_kvquant.results.cell import Check


def check_types(explanation: Explanation, effective: str, expected: str | None, log: str) -> Check:
    """The cache holds what was asked for, or exactly what the configuration expects instead.

    Args:
        effective: the pair that the cache really holds, ``mixed`` where layers differ; empty
            where its state is not readable.
        expected: ``[expect."K/V"] substituted`` of this pair, if any.
        log: the library's log; a line of it that speaks of the change is quoted.
    """
    if expected is not None and effective:
        if explanation.kind == "substituted" and effective == expected:
            return fact("types", "pass", f"runs as {effective}, as [expect] says")
        return fact(
            "types",
            "fail",
            f"[expect] says that it runs as {expected}, and it runs as {effective}: "
            "correct or remove the entry",
        )
    if explanation.kind == "substituted":
        lines = [line.strip() for line in log.splitlines() if _SPEAKS_OF_CHANGE.search(line)]
        quoted = f"; the library says: {lines[-1]}" if lines else "; the library's log is silent"
        return fact("types", "fail", f"{explanation.text}{quoted}")
    if explanation.kind == "differs":
        return fact("types", "fail", explanation.text)
    verdict = "inconclusive" if explanation.kind == "unreadable" else "pass"
    return fact("types", verdict, explanation.text)


_SPEAKS_OF_CHANGE = re.compile(r"upgrading|auto-asymmetric|Boundary V|fall(ing)? ?back|instead of")


@check("types", title="effective types", test="test_effective_types", group="identity",
       needs="census", order=1, unseen="inconclusive")  # fmt: skip
def types(subject: Subject) -> Check:
    """The cache holds the types that were asked for, on every layer.

    Why: builds change types silently (upgrades for models with many query heads, layers kept in
    another type), and the log goes on printing what was asked for. The census reads the cache.

    A failure means: every figure would be that of another pair, so nothing else is measured. Ask
    for what is really held, or declare it: ``[expect."K/V"] substituted = "…"``.
    """
    if subject.explanation is None:
        return unseen("types", "what the cache holds")
    return check_types(subject.explanation, subject.effective, subject.expected, subject.log)
