"""Two results on the same tokens, cell by cell: what got worse, what got better."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile

import msgspec
from rich.console import Console
from rich.table import Table

from pytest_kvquant import format
from pytest_kvquant.errors import ResultError
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.drift import Change, Drift, drift
from pytest_kvquant.report import markdown, matrix_rows, view
from pytest_kvquant.report.matrix_rows import Row
from pytest_kvquant.results.cell import Cell
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

    gone_tests: tuple[str, ...] = ()
    """Tests that the earlier run was asked for and the later one was not."""
    incomplete: str = ""
    """That the later run is not complete."""

    @property
    def worse(self) -> bool:
        """Whether any cell got worse, or is not there to be seen any more."""
        return any(cell.worse for cell in self.cells) or bool(self.vanished)

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
    _same_tokens(before, after)
    shared = _shared_chunks(before, after)
    old, new = ({row.pair: row for row in matrix_rows.rows(result)} for result in (before, after))
    cells = {cell.pair: cell for cell in before.cells}
    again = {cell.pair: cell for cell in after.cells}
    floor = max(result.floor.kl if result.floor else 0.0 for result in (before, after))
    pairs = [pair for pair in old if pair in new]
    if not pairs:
        raise ResultError("These results have no cell in common, so there is nothing to compare.")
    return Comparison(
        cells=tuple(
            CellComparison(
                before=old[pair],
                after=new[pair],
                drift=_drift(cells.get(pair), again.get(pair), shared, floor),
            )
            for pair in pairs
        ),
        only_before=tuple(pair for pair in old if pair not in new),
        only_after=tuple(pair for pair in new if pair not in old),
        differences=tuple(_differences(_builds(before, after))),
        conditions=tuple(_differences(_conditions(before, after))),
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
    table = Table(title=comparison.headline, title_justify="left")
    for at, name in enumerate(HEAD):
        table.add_column(name, justify="left" if at < 2 else "right", no_wrap=True)
    for cell in comparison.cells:
        table.add_row(*_line(cell))
    console.print(table)
    for line in _notes(comparison):
        console.print(line, markup=False)
    return out.getvalue()


def as_markdown(comparison: Comparison) -> str:
    """The comparison for a pull request, under :data:`markdown.LIMIT` bytes.

    What got worse first, then the matrix with arrows, as wide as a phone can show; every figure is
    folded below.
    """
    page = markdown.Page(markdown.LIMIT)
    page.add(f"## {'❌' if comparison.worse else '✅'} KV-cache matrix, compared\n\n")
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
    yield from comparison.differences
    for line in comparison.conditions:
        yield f"condition differs: {line}"
    if comparison.only_before:
        yield f"only in the first: {', '.join(comparison.only_before)}"
    if comparison.only_after:
        yield f"only in the second: {', '.join(comparison.only_after)}"


def _same_tokens(before: Result, after: Result) -> None:
    facts = [
        ("model", before.model.fingerprint, after.model.fingerprint),
        ("corpus", before.corpus.fingerprint, after.corpus.fingerprint),
        ("tokens per chunk", before.settings.ctx, after.settings.ctx),
        ("scored tokens per chunk", before.settings.scored, after.settings.scored),
    ]
    found = [f"{what}: {old} → {new}" for what, old, new in facts if old != new]
    if found:
        raise ResultError(
            f"These results cannot be compared, for these conditions differ: {'; '.join(found)}. "
            "Figures are comparable on the same tokens of the same model only."
        )


def _shared_chunks(before: Result, after: Result) -> int:
    """How many chunks, from the first, are the same text in both."""
    pairs = zip(before.corpus.chunks, after.corpus.chunks, strict=False)
    shared = len(list(takewhile(lambda both: both[0] == both[1], pairs)))
    if not shared:
        raise ResultError(
            "These results cannot be compared: they drew other chunks of the corpus "
            f"(seed {before.settings.seed} and {after.settings.seed})."
        )
    return shared


def _drift(old: Cell | None, new: Cell | None, shared: int, floor: float) -> Drift | None:
    if old is None or new is None or not old.per_chunk.get("kl") or not new.per_chunk.get("kl"):
        return None
    first, second = (
        {name: values[:shared] for name, values in cell.per_chunk.items()} for cell in (old, new)
    )
    return drift(first, second, floor=floor)


def _builds(before: Result, after: Result) -> list[tuple[str, object, object]]:
    old, new = before.environment.library, after.environment.library
    return [("build", f"{old.build}, files {old.hash}", f"{new.build}, files {new.hash}")]


def _conditions(before: Result, after: Result) -> list[tuple[str, object, object]]:
    old, new = before.environment, after.environment
    names = ("batch", "ubatch", "sequences", "threads", "gpu_layers")
    return [
        ("device", old.library.device, new.library.device),
        ("processor", old.cpu, new.cpu),
        ("variables", _variables(old.variables_set), _variables(new.variables_set)),
        ("compared with", before.reference.subject, after.reference.subject),
        *((name, getattr(before.settings, name), getattr(after.settings, name)) for name in names),
    ]


def _variables(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(found.items())) or "none"


def _differences(facts: Iterable[tuple[str, object, object]]) -> Iterator[str]:
    for what, was, now in facts:
        if was != now:
            yield f"{what}: {was} → {now}"
