"""The two tables that people publish of KV-cache quantization, from one result.

Quality: PPL, KL, top-1 of every pair. Speed: prefill and decode by depth, in tok/s, and whether the
pair's context fits. As markdown, CSV or LaTeX.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pytest_kvquant import format
from pytest_kvquant.errors import ResultError
from pytest_kvquant.report import matrix_rows
from pytest_kvquant.report.matrix_rows import Row
from pytest_kvquant.results.result import Result

FORMATS = ("markdown", "csv", "latex")
TABLES = ("article",)


def format_of(word: str) -> str:
    """The format that ``article:csv``, ``csv`` or, for markdown, ``article`` ask for.

    >>> format_of("article"), format_of("article:csv"), format_of("latex")
    ('markdown', 'csv', 'latex')
    """
    return "markdown" if word in TABLES else word.rpartition(":")[2]


class Sheet(NamedTuple):
    """A table: a title, a header with units, lines of text."""

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def sheets(result: Result) -> tuple[Sheet, ...]:
    """The tables of a result: those for which something was measured.

    Raises:
        ResultError: nothing was.
    """
    rows = matrix_rows.rows(result)
    found = [
        *([_quality(result, rows)] if any(row.kl is not None for row in rows) else []),
        *([_speed(rows)] if any(row.speeds for row in rows) else []),
    ]
    if not found:
        raise ResultError("This result has neither quality nor speed figures: there is no table.")
    return tuple(found)


def article(result: Result, how: str) -> str:
    """The tables of a result as text.

    Args:
        how: one of :data:`FORMATS`.

    Raises:
        ResultError: nothing was measured.
    """
    return "\n".join(WRITERS[how](sheet) for sheet in sheets(result))


def _quality(result: Result, rows: Sequence[Row]) -> Sheet:
    shape = result.settings
    title = (
        f"Quality of {result.model.name} on {result.corpus.name}, "
        f"{shape.ctx:,} tokens of context, against {result.reference.subject}"
    )
    # A pair may be decided after fewer chunks than another: their PPLs are of other tokens then.
    apart = len({row.chunks for row in rows if row.chunks is not None}) > 1
    lines = tuple(
        (
            row.pair,
            _text(row.ppl, "{:.4f}".format),
            *((_text(_ppl_of_f16(row), "{:.4f}".format),) if apart else ()),
            _text(row.ppl_delta, format.signed),
            _text(row.kl, format.kl),
            _text(row.top1, format.percent_number),
            _text(row.compression, format.factor),
            row.verdict,
        )
        for row in rows
    )
    own = ("f16's, same tokens",) if apart else ()
    head = ("K/V", "PPL", *own, "PPL delta", "KL (nats)", "top-1 (%)", "smaller (×)", "verdict")
    return Sheet(title, head, lines)


def _ppl_of_f16(row: Row) -> float | None:
    return None if row.ppl is None or row.ppl_delta is None else row.ppl - row.ppl_delta


def _speed(rows: Sequence[Row]) -> Sheet:
    depths = sorted({one.depth for row in rows for one in row.speeds})
    fits = any(row.context is not None for row in rows)
    head = ["K/V"]
    for depth in depths:
        head += [f"pp @ {depth:,} (tok/s)", f"tg @ {depth:,} (tok/s)"]
    if fits:
        head.append("context that fits (tokens)")
    lines = []
    for row in rows:
        if not row.speeds and row.context is None:
            continue
        by_depth = {one.depth: one for one in row.speeds}
        line = [row.pair]
        for depth in depths:
            one = by_depth.get(depth)
            line += [_text(getattr(one, kind, None), format.speed) for kind in ("pp", "tg")]
        if fits:
            line.append(_text(row.context, format.count))
        lines.append(tuple(line))
    return Sheet("Speed by depth", tuple(head), tuple(lines))


def _text(value: float | None, show: Callable[[float], str]) -> str:
    return "–" if value is None else show(value)


def _markdown(sheet: Sheet) -> str:
    rule = ["---", *["--:"] * (len(sheet.head) - 1)]
    lines = [sheet.head, rule, *sheet.lines]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"**{sheet.title}**\n\n{table}"


def _csv(sheet: Sheet) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(sheet.head)
    plain = [["" if cell == "–" else cell for cell in line] for line in sheet.lines]
    writer.writerows([line[0], *(_number(cell) for cell in line[1:])] for line in plain)
    return out.getvalue()


def _number(cell: str) -> str:
    """A figure without thousands separators, as a spreadsheet reads it."""
    bare = cell.replace(",", "")
    try:
        float(bare)
    except ValueError:
        return cell
    return bare


SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "×": r"$\times$", "–": "--",
}  # fmt: skip


def _latex(sheet: Sheet) -> str:
    def escape(text: str) -> str:
        return "".join(SPECIAL.get(sign, sign) for sign in text)

    columns = "l" + "r" * (len(sheet.head) - 1)
    lines = [" & ".join(map(escape, line)) + r" \\" for line in sheet.lines]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape(sheet.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            " & ".join(map(escape, sheet.head)) + r" \\",
            r"\hline",
            *lines,
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


WRITERS: dict[str, Callable[[Sheet], str]] = {
    "markdown": _markdown,
    "csv": _csv,
    "latex": _latex,
}
