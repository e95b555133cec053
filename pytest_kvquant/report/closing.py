"""The last line of a run: PASS or FAIL, of how many pairs, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kvquant.report import view
from pytest_kvquant.report.reasons import joined, lacks, short
from pytest_kvquant.results.result import Result


def closing_line(result: Result, *, objections: Sequence[str] = (), planned: int = 0) -> str:
    """One line, without a line break.

    Args:
        objections: what failed the run beside its pairs, in sentences.
        planned: pairs of the run; those of them that were not measured make it incomplete.
    """
    rows = view.rows(result)
    missing = max(planned - len(rows), 0)
    passed = sum(row.verdict == "pass" for row in rows)
    of = f"{passed} of {max(planned, len(rows))} pairs pass"
    if not rows:
        return "INCOMPLETE · no pair was measured · look at the errors above"
    tone = view.run_tone(result)
    if tone == "bad" or objections:
        return f"FAIL · {of} · {_what_to_do(result, objections)}"
    if missing:
        return f"INCOMPLETE · {of} · {missing} not measured: run it again to its end"
    if tone == "open":
        return f"PASS, undecided · {of} · {_undecided(result)}"
    return f"PASS · {of} · nothing to do"


def _what_to_do(result: Result, objections: Sequence[str]) -> str:
    failed = [row.pair for row in view.rows(result) if row.tone == "bad"]
    if not failed:
        if objections:
            return " ".join(objections)
        return f"--kv-strict: {_undecided(result)}"
    pair = failed[0]
    cells = {cell.pair: cell for cell in result.cells}
    speeds = {cell.pair: cell for cell in result.speed}
    ceilings = {one.pair: one for one in result.ceilings}
    words = short(cells.get(pair), speeds.get(pair), ceilings.get(pair))
    why = f"{pair}: {joined(words, 2)}" if words else f"{pair}: {_verdict(result, pair)}"
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{why}{more}; again: {view.repeat(result, pair)}"


def _undecided(result: Result) -> str:
    cells = {cell.pair: cell for cell in result.cells}
    speeds = {cell.pair: cell for cell in result.speed}
    for row in view.rows(result):
        if row.tone == "open" and (words := lacks(cells.get(row.pair), speeds.get(row.pair))):
            return f"{row.pair}: {words[0]}"
    for one in result.unmeasured:
        if one.open:
            return one.text
    return "see the lines above"


def _verdict(result: Result, pair: str) -> str:
    return next((row.verdict for row in view.rows(result) if row.pair == pair), "not measured")
