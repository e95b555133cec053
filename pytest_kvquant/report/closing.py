"""The last line of a run: PASS or FAIL, of how many pairs, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kvquant.report import matrix_rows, view
from pytest_kvquant.report.reasons import joined, lacks, short, undecided_lines
from pytest_kvquant.results.result import Result


def closing_line(
    result: Result, *, objections: Sequence[str] = (), planned: int = 0, failed: int = 0
) -> str:
    """One line, without a line break.

    Args:
        failed: tests of the run that failed, whatever they tested.
        objections: what failed the run beside its pairs, in sentences.
        planned: pairs of the run; those of them that were not measured make it incomplete.
    """
    rows = matrix_rows.rows(result)
    if not rows:
        word, what = "", "no test asked for figures"
        if failed:
            word, what = "FAIL · ", f"{_tests(failed)} failed, see above"
        elif not result.complete:
            word, what = "INCOMPLETE · ", result.incomplete_text
        return f"{word}no pair was measured · {what}"
    missing = max(planned - len(rows), 0)
    passed = sum(row.verdict == "pass" for row in rows)
    word, what = _verdict_and_what_to_do(result, objections, missing, failed)
    return f"{word} · {passed} of {max(planned, len(rows))} pairs pass · {what}"


def _verdict_and_what_to_do(
    result: Result, objections: Sequence[str], missing: int, failed: int
) -> tuple[str, str]:
    bad = any(row.tone == "bad" for row in matrix_rows.rows(result))
    if bad or objections:
        return "FAIL", _what_to_do(result, objections)
    if failed:
        return "FAIL", f"{_tests(failed)} failed, see above"
    if missing or not result.complete:
        left = f"{missing} not measured" if missing else result.incomplete_text
        return "INCOMPLETE", f"{left}: the same command goes on from there"
    tone = view.run_tone(result)
    if tone == "bad":
        return "FAIL", f"--kv-strict: {_undecided(result)}"
    if tone == "open":
        return "PASS, undecided", _undecided(result)
    told = undecided_lines(result.cells, result.speed)
    return "PASS", "what stayed undecided stands above" if told else "nothing to do"


def _tests(number: int) -> str:
    return "1 test" if number == 1 else f"{number} tests"


def _what_to_do(result: Result, objections: Sequence[str]) -> str:
    failed = [row.pair for row in matrix_rows.rows(result) if row.tone == "bad"]
    if not failed:
        return " ".join(objections)
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
    for row in matrix_rows.rows(result):
        if row.tone == "open" and (words := lacks(cells.get(row.pair), speeds.get(row.pair))):
            return f"{row.pair}: {words[0]}"
    for one in result.unmeasured:
        if one.open:
            return one.text
    return "see the lines above"


def _verdict(result: Result, pair: str) -> str:
    return next(
        (row.verdict for row in matrix_rows.rows(result) if row.pair == pair), "not measured"
    )
