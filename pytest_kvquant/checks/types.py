"""The cache holds what was asked for, or what the configuration expects instead."""

from __future__ import annotations

import re

from pytest_kvquant.checks.facts import _check
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
            return _check("types", "pass", f"runs as {effective}, as [expect] says")
        return _check(
            "types",
            "fail",
            f"[expect] says that it runs as {expected}, and it runs as {effective}: "
            "correct or remove the entry",
        )
    if explanation.kind == "substituted":
        lines = [line.strip() for line in log.splitlines() if _SPEAKS_OF_CHANGE.search(line)]
        quoted = f"; the library says: {lines[-1]}" if lines else "; the library's log is silent"
        return _check("types", "fail", f"{explanation.text}{quoted}")
    if explanation.kind == "differs":
        return _check("types", "fail", explanation.text)
    verdict = "inconclusive" if explanation.kind == "unreadable" else "pass"
    return _check("types", verdict, explanation.text)


_SPEAKS_OF_CHANGE = re.compile(r"upgrading|auto-asymmetric|Boundary V|fall(ing)? ?back|instead of")
