"""The summary for a pull request: verdict first, then why, then the figures; and annotations.

GitHub drops a step summary beyond 1 MiB and a comment beyond 65,536 characters: a summary stays
under :data:`LIMIT` bytes, and says what it leaves out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from pytest_kvquant import format
from pytest_kvquant.machine.escape import one_line, paragraph
from pytest_kvquant.report import matrix_rows, view
from pytest_kvquant.report.baseline_notes import notes
from pytest_kvquant.report.links import link
from pytest_kvquant.report.matrix_rows import Row
from pytest_kvquant.report.off_device import off_device_lines
from pytest_kvquant.report.run_lines import conditions_line
from pytest_kvquant.report.view import Failure
from pytest_kvquant.report.workloads import Entry, WorkloadTable, recall_table, text_tables
from pytest_kvquant.results.result import Result

LIMIT = 60_000
"""Bytes of a summary."""

SHARE_OF_FAILURES = 0.6
"""Of the limit; the figures keep the rest."""

LONGEST_REASON = 2_000
"""Characters of one failure's words."""

MOST_ANNOTATIONS = 10
"""GitHub shows this many of one kind in a step, and drops the others without a word."""

MARKS = {"good": "✅", "open": "⚠️", "bad": "❌"}


def summary(result: Result) -> str:
    """The summary of a run as GitHub-flavoured markdown, under :data:`LIMIT` bytes."""
    rows, failures = matrix_rows.rows(result), view.failures(result)
    page = Page(LIMIT)
    page.add(f"## {MARKS[view.run_tone(result)]} KV-cache matrix\n\n")
    page.add(f"**{plain(view.headline(result))}**\n\n{plain(conditions_line(result))}\n\n")
    if (other := result.reference.library) is not None:
        page.add(f"Compared with {result.reference.subject}, {plain(other.build)}.\n\n")
    if failures:
        page.add("### What does not pass, and why\n\n")
        page.add_all(map(_failure, failures), "cells that do not pass", share=SHARE_OF_FAILURES)
    if changes := notes(result):
        page.add("### What changed since the baseline\n\n")
        page.add_all((f"- {plain(line)}\n" for line in changes), "changes", share=0.8)
    if result.advice:
        page.add("### Which pair for which work\n\n")
        page.add("".join(f"- {plain(advice.text)}\n" for advice in result.advice) + "\n")
    if result.ceilings:
        page.add("### The context that fits\n\n")
        fits = (f"- {code(one.pair)} {plain(one.line)}\n" for one in result.ceilings)
        page.add_all(fits, "contexts", share=0.8)
    for line in off_device_lines(result):
        page.add(f"{plain(line)}\n\n")
    for one in result.unmeasured:
        page.add(f"⚠️ {plain(one.text)}\n\n")
    if rows:
        page.add("### The matrix: mean KL\n\n")
        _add_matrix(page, rows)
        page.add("<details><summary>Every cell</summary>\n\n")
        columns = [column for column in matrix_rows.COLUMNS if column.in_any(rows)]
        page.add(table_head(["pair", "verdict", *(column.label for column in columns)]))
        lines = (_line(row, columns) for row in rows)
        page.add_all(lines, "cells", closing="\n</details>\n")
    recall = recall_table(result)
    for table in (*text_tables(result), *([recall] if recall else [])):
        _add_table(page, table)
    return page.text


def workflow_commands(result: Result, page: str = "") -> list[str]:
    """Workflow commands that mark the failed cells of a run on GitHub, one line each.

    At most :data:`MOST_ANNOTATIONS`: the last of them counts those that are left out.
    """
    failed = [failure for failure in view.failures(result) if failure.row.tone == "bad"]
    shown = failed if len(failed) <= MOST_ANNOTATIONS else failed[: MOST_ANNOTATIONS - 1]
    lines = [
        _annotation(
            f"{failure.row.pair}: {failure.row.verdict}",
            "\n".join([*failure.reasons, *_ends(failure, page)])[:LONGEST_REASON],
        )
        for failure in shown
    ]
    if len(shown) < len(failed):
        rest = [failure.row.pair for failure in failed[len(shown) :]]
        lines.append(_annotation(f"{len(rest)} more cells fail", ", ".join(rest)[:LONGEST_REASON]))
    return lines


def _ends(failure: Failure, page: str) -> list[str]:
    """What to do about a failure: measure it again, look at its place in the page."""
    seen = [f"page: {link(page, failure.row.pair)}"] if page else []
    return [f"again: {failure.command}", *seen]


def plain(text: str) -> str:
    """Text that markdown shows as it is: no markup, no HTML, no table cell, one line."""
    escaped = html.escape(one_line(" ".join(text.split())), quote=False)
    return re.sub(r"([\\`*_\[\]#|~$@])", r"\\\1", escaped)


def code(text: str) -> str:
    """Text as a code span that it cannot end, and that does not end a table cell.

    >>> code("q8_0/turbo4"), code("a`b")
    ('`q8_0/turbo4`', '`` a`b ``')
    """
    line = one_line(" ".join(text.split())).replace("|", "¦")
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def fenced(text: str) -> str:
    """Text as a code block that it cannot end."""
    text = paragraph(text)
    fence = "`" * max(3, max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence}text\n{text}\n{fence}\n"


def table_head(names: Sequence[str]) -> str:
    """The head of a table: the first two columns are words, the others figures."""
    rule = [":--" if at < 2 else "--:" for at in range(len(names))]
    return f"{table_line(names)}{table_line(rule)}"


def table_line(cells: Iterable[str]) -> str:
    """A line of a table, of cells that are markdown already."""
    return f"| {' | '.join(cells)} |\n"


class Page:
    """Text that stays under a limit of bytes, and says what did not fit."""

    RESERVE = 400
    """Bytes kept for saying what is left out."""

    def __init__(self, limit: int) -> None:
        self.text, self._limit, self._size = "", limit, 0

    def add(self, text: str) -> None:
        """Text of a bounded size that has to be there."""
        self.text += text
        self._size += len(text.encode())

    def fits(self, text: str, share: float = 1.0) -> bool:
        """Whether there is room for it in the first ``share`` of the page."""
        return self._size + len(text.encode()) <= share * self._limit - self.RESERVE

    def add_all(
        self, texts: Iterable[str], what: str, *, share: float = 1.0, closing: str = ""
    ) -> None:
        """As many of the texts as fit, then how many of ``what`` there are beside them."""
        waiting = list(texts)
        for number, text in enumerate(waiting):
            if not self.fits(text + closing, share):
                left = len(waiting) - number
                self.add(f"\n_{left} more {what} do not fit here; the JSON result has them all._\n")
                break
            self.add(text)
        self.add(closing or "\n")


def _failure(failure: Failure) -> str:
    """A pair that failed with all that is known of it; an undecided one in a line."""
    row, briefly = failure.row, plain("; ".join(failure.briefly[:2]))
    head = (
        f"{MARKS[row.tone]} {code(row.pair)} **{row.verdict}**{f': {briefly}' if briefly else ''}"
    )
    if row.tone == "open" and briefly:
        return f"{head}\n\n"
    words = "\n\n".join(failure.reasons)
    if len(words) > LONGEST_REASON:
        words = f"{words[:LONGEST_REASON]} … (cut)"
    return f"{head}\n" + fenced(f"{words}\n\n{failure.command}") + "\n"


def _add_matrix(page: Page, rows: Sequence[Row]) -> None:
    by_pair = {(row.k, row.v): row for row in rows}
    columns = list(dict.fromkeys(row.v for row in rows))
    lines = [table_head(["K \\\\ V", *map(code, columns)])]
    for kind in dict.fromkeys(row.k for row in rows):
        entries = (_entry(by_pair.get((kind, column))) for column in columns)
        lines.append(table_line([code(kind), *entries]))
    text = "".join(lines) + "\n"
    page.add(text if page.fits(text, 0.8) else "_The matrix is too wide to fit here._\n\n")


def _add_table(page: Page, table: WorkloadTable) -> None:
    lines = [table_line([code(pair), *map(_marked, entries)]) for pair, entries in table.lines]
    names = [plain(name) for name in ("pair", *table.columns)]
    rule = [":--", *("--:" for _ in table.columns)]
    head = f"<details><summary>{html.escape(table.title)}</summary>\n\n"
    head += f"{table_line(names)}{table_line(rule)}"
    if page.fits(head):
        page.add(head)
        page.add_all(lines, "pairs", closing="\n</details>\n")


def _marked(entry: Entry) -> str:
    return entry.text if entry.tone == "good" else f"{MARKS[entry.tone]} {entry.text}"


def _entry(row: Row | None) -> str:
    if row is None:
        return ""
    figure = row.verdict if row.kl is None else format.kl(row.kl)
    return figure if row.tone == "good" else f"{MARKS[row.tone]} **{figure}**"


def _line(row: Row, columns: Sequence[matrix_rows.Column]) -> str:
    verdict = f"{MARKS[row.tone]} {row.verdict}"
    return table_line([code(row.pair), verdict, *(column.show(row) for column in columns)])


def _annotation(title: str, message: str) -> str:
    """https://docs.github.com/actions/reference/workflow-commands-for-github-actions."""
    words = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::error title={name.replace(':', '%3A').replace(',', '%2C')}::{words}"
