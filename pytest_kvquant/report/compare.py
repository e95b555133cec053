"""Two results on the same tokens, cell by cell: what got worse, what got better."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from pytest_kvquant import format
from pytest_kvquant.errors import ResultError
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.drift import SPREAD, Change, Drift, drift
from pytest_kvquant.report import markdown, matrix_rows, view
from pytest_kvquant.report.conditions_apart import (
    builds,
    conditions,
    differences,
    require_same_tokens,
    shared_chunks,
)
from pytest_kvquant.report.matrix_rows import Row, Tone
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.drift_words import sentence
from pytest_kvquant.results.result import Result

WORSE_DRIFTS = ("worse", "inactive")


class CellComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One pair in both results."""

    before: Row
    after: Row
    drift: Drift | None
    """None where a side has no figures by chunk."""

    @property
    def worse(self) -> bool:
        """Whether it does not pass any more, or drifted away from f16 or out of quantization."""
        tones = matrix_rows.TONES
        fell = tones.index(self.after.tone) > tones.index(self.before.tone)
        return fell or (self.drift is not None and self.drift.verdict in WORSE_DRIFTS)

    @property
    def word(self) -> str:
        """What happened, in a word or two."""
        if self.before.verdict != self.after.verdict:
            return f"{self.before.verdict} → {self.after.verdict}"
        return self.drift.verdict if self.drift else "no figures"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two results: the cells that both have, and what else differs."""

    cells: tuple[CellComparison, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    differences: tuple[str, ...]
    """Conditions that differ and are what is compared, or may be: the build."""
    conditions: tuple[str, ...] = ()
    """Conditions that differ and move figures or speeds by themselves: machine, batches,
    variables."""

    across: bool = False
    """Whether it is judged although conditions differ."""
    apart: tuple[str, ...] = ()
    """Names of all that differs."""
    gone_tests: tuple[str, ...] = ()
    """Tests that the earlier run was asked for and the later one was not."""
    incomplete: str = ""
    """That the later run is not complete."""

    @property
    def worse(self) -> bool:
        """Whether any cell got worse, or is not there to be seen any more."""
        return any(cell.worse for cell in self.cells) or bool(self.vanished)

    @property
    def judged(self) -> bool:
        """Whether it says anything: not where other things differ than what is compared."""
        return self.across or not self.conditions

    @property
    def tone(self) -> Tone:
        """How it reads: what is not judged is no green."""
        return "open" if not self.judged else "bad" if self.worse else "good"

    @property
    def vanished(self) -> str:
        """What the earlier result has and the later one lacks, in words; empty: nothing."""
        gone, tests = self.only_before, self.gone_tests
        told = [self.incomplete] if self.incomplete else []
        told += [f"{len(gone)} vanished: {view.some(gone)}"] if gone else []
        told += [f"tests that were not asked for any more: {view.some(tests)}"] if tests else []
        return "; ".join(told)

    @property
    def headline(self) -> str:
        """The comparison in one sentence."""
        if not self.judged:
            return f"Not judged: conditions differ ({'; '.join(self.conditions)})."
        worse = [cell.after.pair for cell in self.cells if cell.worse]
        vanished = f" {self.vanished[:1].upper()}{self.vanished[1:]}." if self.vanished else ""
        if worse:
            whole = f"{len(worse)} of {len(self.cells)} cells got worse: {view.some(worse)}."
            return whole + vanished
        drifts = [cell.drift.verdict for cell in self.cells if cell.drift]
        better = f"; {drifts.count('better')} got better" if "better" in drifts else ""
        return f"None of {len(self.cells)} cells got worse{better}.{vanished}"


def compare(before: Result, after: Result) -> Comparison:
    """Compare two results.

    Raises:
        ResultError: they were not measured with the same model on the same tokens, or share no
            cell.
    """
    require_same_tokens(before, after)
    shared = shared_chunks(before, after)
    old, new = ({row.pair: row for row in matrix_rows.rows(result)} for result in (before, after))
    cells = {cell.pair: cell for cell in before.cells}
    again = {cell.pair: cell for cell in after.cells}
    floor = max(result.floor.kl if result.floor else 0.0 for result in (before, after))
    pairs = [pair for pair in old if pair in new]
    if not pairs:
        raise ResultError("These results have no cell in common, so there is nothing to compare.")
    facts = conditions(before, after)
    spread = SPREAD if any(differences(facts)) else 0.0
    return Comparison(
        cells=tuple(
            CellComparison(
                before=old[pair],
                after=new[pair],
                drift=_drift(cells.get(pair), again.get(pair), shared, floor, spread),
            )
            for pair in pairs
        ),
        only_before=tuple(pair for pair in old if pair not in new),
        only_after=tuple(pair for pair in new if pair not in old),
        differences=tuple(differences(builds(before, after))),
        conditions=tuple(differences(facts)),
        apart=tuple(what for what, was, now in (*builds(before, after), *facts) if was != now),
        gone_tests=_gone_tests(before, after),
        incomplete="" if after.complete else after.incomplete_text,
    )


def _gone_tests(before: Result, after: Result) -> tuple[str, ...]:
    if before.selection is None or after.selection is None:
        return ()
    return tuple(one for one in before.selection.tests if one not in after.selection.tests)


def as_text(comparison: Comparison, *, width: int = 110) -> str:
    """The comparison as a table for a terminal."""
    out = io.StringIO()
    console = Console(
        markup=False, emoji=False, file=out, width=width, highlight=False, no_color=True
    )
    console.print(comparison.headline, soft_wrap=True)
    lines = [_line(cell) for cell in comparison.cells]
    told = [at for at in range(len(HEAD)) if any(line[at] not in ("", "–") for line in lines)]
    whole = _table(lines, told)
    if whole.__rich_measure__(console, console.options.update(max_width=1000)).maximum <= width:
        console.print(whole)
    else:
        console.print(_table(lines, [at for at in told if at < TOP1]))
        console.print(_table(lines, [at for at in told if at == 0 or at >= TOP1]))
    for line in _notes(comparison):
        console.print(line, markup=False)
    return out.getvalue()


def _table(lines: Sequence[Sequence[str]], columns: Sequence[int]) -> Table:
    table = Table()
    for at in columns:
        table.add_column(HEAD[at], justify="left" if at < 2 else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(line[at] for at in columns))
    return table


def as_markdown(comparison: Comparison) -> str:
    """The comparison for a pull request, under :data:`markdown.LIMIT` bytes.

    What got worse first, then the matrix with arrows, as wide as a phone can show; every figure is
    folded below.
    """
    page = markdown.Page(markdown.LIMIT)
    page.add(f"## {markdown.MARKS[comparison.tone]} KV-cache matrix, compared\n\n")
    page.add(f"**{markdown.plain(comparison.headline)}**\n\n")
    worse = (
        f"- ❌ {markdown.code(cell.after.pair)} {markdown.plain(_in_words(cell))}\n"
        for cell in comparison.cells
        if cell.worse
    )
    page.add_all(worse, "cells that got worse", share=0.5)
    for line in _notes(comparison):
        page.add(f"- {markdown.plain(line)[:2000]}\n")
    page.add("\nMean KL in nats, and where it went: ▲ further from f16, ▼ closer, = as it was.\n\n")
    _add_arrows(page, comparison)
    page.add("<details><summary>Every figure</summary>\n\n" + markdown.table_head(HEAD))
    ordered = sorted(comparison.cells, key=lambda cell: not cell.worse)
    lines = ([markdown.code(pair), *rest] for pair, *rest in map(_line, ordered))
    page.add_all(map(markdown.table_line, lines), "cells", closing="\n</details>\n")
    return page.text


def _add_arrows(page: markdown.Page, comparison: Comparison) -> None:
    cells = {(cell.after.k, cell.after.v): arrow(cell) for cell in comparison.cells}
    cells |= {Pair.parse(pair): "❌ **vanished**" for pair in comparison.only_before}
    columns = list(dict.fromkeys(v for _, v in cells))
    lines = [markdown.table_head(["K \\\\ V", *map(markdown.code, columns)])]
    for kind in dict.fromkeys(k for k, _ in cells):
        entries = (cells.get((kind, column), "") for column in columns)
        lines.append(markdown.table_line([markdown.code(kind), *entries]))
    text = "".join(lines) + "\n"
    page.add(text if page.fits(text, 0.8) else "_The matrix is too wide to fit here._\n\n")


def arrow(cell: CellComparison) -> str:
    """A cell of the matrix with arrows."""
    figure = cell.after.verdict if cell.after.kl is None else format.kl(cell.after.kl)
    kl = _kl_change(cell)
    went = "=" if kl is None or abs(kl.moved) < 1e-12 else "▲" if kl.moved > 0 else "▼"
    return f"❌ **{figure}** {went}" if cell.worse else f"{figure} {went}"


def _in_words(cell: CellComparison) -> str:
    before, after, kl = cell.before, cell.after, _kl_change(cell)
    words = [cell.word]
    if before.kl is not None and after.kl is not None:
        change = f" ({100 * math.expm1(kl.moved):+.1f} %)" if kl is not None else ""
        words.append(f"KL {format.kl(before.kl)} → {format.kl(after.kl)}{change}")
    return ", ".join(words)


def _kl_change(cell: CellComparison) -> Change | None:
    changes = cell.drift.changes if cell.drift else ()
    return next((change for change in changes if change.figure == "kl"), None)


HEAD = ("pair", "what", "KL (nats)", "→", "change", "±", "top-1", "→", "decode × f16", "→")

TOP1 = HEAD.index("top-1")  # there a table is divided that is wider than its screen


def _line(cell: CellComparison) -> list[str]:
    before, after = cell.before, cell.after
    kl = _kl_change(cell)
    return [
        after.pair,
        f"{'▲ ' if cell.worse else ''}{cell.word}",
        "–" if before.kl is None else format.kl(before.kl),
        "–" if after.kl is None else format.kl(after.kl),
        "" if kl is None else f"{100 * math.expm1(kl.moved):+.1f}%",
        "" if kl is None or kl.reach is None else f"{100 * kl.reach:.1f}%",
        "–" if before.top1 is None else format.percent(before.top1),
        "–" if after.top1 is None else format.percent(after.top1),
        "–" if before.tg_ratio is None else format.ratio(before.tg_ratio),
        "–" if after.tg_ratio is None else format.ratio(after.tg_ratio),
    ]


def _notes(comparison: Comparison) -> Iterator[str]:
    for cell in comparison.cells:
        if cell.drift is not None and cell.drift.verdict not in ("equal", "changed"):
            told = sentence(cell.drift, comparison.apart, "the first result")
            yield f"{cell.after.pair}: {told}"
    yield from comparison.differences
    for line in comparison.conditions:
        yield f"condition differs: {line}"
    if comparison.only_before:
        yield f"only in the first: {', '.join(comparison.only_before)}"
    if comparison.only_after:
        yield f"only in the second: {', '.join(comparison.only_after)}"


def _drift(
    old: Cell | None, new: Cell | None, shared: int, floor: float, spread: float
) -> Drift | None:
    """As that of a baseline: f16/f16 by its own perplexity, other logits are a change."""
    if old is None or new is None or not old.per_chunk.get("kl") or not new.per_chunk.get("kl"):
        return None
    first, second = (
        {name: values[:shared] for name, values in cell.per_chunk.items()} for cell in (old, new)
    )
    if old.pair == str(REFERENCE) and "nll_cell" in first and "nll_cell" in second:
        first, second = ({**one, "ln_ppl": one["nll_cell"]} for one in (first, second))
    found = drift(first, second, floor=floor, spread=spread)
    digests = zip(old.digests[:shared], new.digests[:shared], strict=False)
    if found.verdict == "equal" and any(one != other for one, other in digests):
        return msgspec.structs.replace(found, verdict="changed")
    return found
