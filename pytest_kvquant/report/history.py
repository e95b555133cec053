"""Many results over time: one line per pair, and where its level changed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from pytest_kvquant import format
from pytest_kvquant.errors import ResultError
from pytest_kvquant.numerics.trend import change_points
from pytest_kvquant.report import matrix_rows, snapshot
from pytest_kvquant.report.snapshot import Snapshot
from pytest_kvquant.results.file import decode, is_baseline

MOST_LEFT_OUT = 3
"""Files that are named one by one: a project's folder may hold hundreds of other JSON files."""

BARS = "▁▂▃▄▅▆▇█"

HEADS = {
    "kl": "KL (nats)",
    "top1": "top-1",
    "ppl_delta": "PPL delta",
    "tg_ratio": "tg × f16",
    "memory": "bytes/token",
    "tg": "tg (tok/s)",
    "pp": "pp (tok/s)",
}
"""Each with its unit, as the head of a column."""

METRICS = {
    "kl": format.kl,
    "top1": format.percent,
    "ppl_delta": format.signed,
    "tg_ratio": format.ratio,
    "memory": format.count,
    "tg": format.speed,
    "pp": format.speed,
}
"""What a trend can be of: figures of a :class:`Snapshot`."""

SHOWN = (
    *matrix_rows.METRICS,
    matrix_rows.Metric(key="tg", label="decode", unit="speed", better="high"),
    matrix_rows.Metric(key="pp", label="prefill", unit="speed", better="high"),
)
"""What the page can show."""


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one pair over time."""

    pair: str
    runs: tuple[int, ...]
    """Which runs of the series have it, counted from 0."""
    values: tuple[float, ...]
    changes: tuple[int, ...]
    """Where among the values a new level begins; information, not a verdict."""


class PairHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that can be compared: the same model on the same text, cut alike, on one processor."""

    title: str
    started: tuple[str, ...]
    builds: tuple[str, ...]
    trends: dict[str, tuple[Trend, ...]]
    """By metric."""


def load(folder: Path) -> tuple[list[Snapshot], list[str]]:
    """All points in a folder, oldest first, and a sentence about each file that holds none.

    Results, what ``kvquant import`` wrote, and zips of either.

    Raises:
        ResultError: no such folder, or no point in it.
    """
    if not folder.is_dir():
        raise ResultError(f"{folder} is not a folder with result files.")
    points: list[Snapshot] = []
    skipped: list[str] = []
    baselines = 0
    for name, data in _files(folder, skipped):
        if is_baseline(data):
            baselines += 1
            continue
        try:
            points += _points(data, name)
        except ResultError as error:
            skipped.append(f"left out: {error}")
    if len(skipped) > MOST_LEFT_OUT:
        skipped[MOST_LEFT_OUT:] = [f"left out: {len(skipped) - MOST_LEFT_OUT} more files"]
    if baselines:
        skipped.append(f"left out: {baselines} baselines (--git shows them, commit by commit)")
    if not points:
        raise ResultError(f"{folder} holds no result file (*.json that --kv-json wrote).")
    return sorted(points, key=lambda point: point.started), skipped


def _files(folder: Path, skipped: list[str]) -> Iterator[tuple[str, bytes]]:
    """The JSON files of a folder and of the zips in it; hidden folders hold those of tools."""
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts[:-1]):
            continue
        if path.suffix == ".json" and path.is_file():
            yield str(path), path.read_bytes()
        elif path.suffix == ".zip" and path.is_file():
            try:
                with zipfile.ZipFile(path) as packed:
                    for name in sorted(packed.namelist()):
                        if name.endswith(".json"):
                            yield f"{path}:{name}", packed.read(name)
            except (zipfile.BadZipFile, OSError) as error:
                skipped.append(f"left out: {path}: {error}")


def _points(data: bytes, name: str) -> list[Snapshot]:
    if data.lstrip()[:1] == b"[":
        return snapshot.decode(data, name)
    return [snapshot.of_result(decode(data, name))]


def series(points: Sequence[Snapshot]) -> tuple[PairHistory, ...]:
    """The points sorted into series, in the order in which each began."""
    grouped: dict[str, list[Snapshot]] = {}
    for point in points:
        grouped.setdefault(point.title, []).append(point)
    return tuple(_series(title, runs) for title, runs in grouped.items())


def sparkline(values: Sequence[float]) -> str:
    """Figures as bars, from the lowest to the highest, or to a tenth over the lowest if that is
    more: what hardly moves has to look flat.

    >>> sparkline([1, 2, 3, 8]), sparkline([5, 5.01, 5])
    ('▁▂▃█', '▁▁▁')
    """
    low = min(values)
    span = max(max(values) - low, 0.1 * abs(low))
    if span == 0:
        return BARS[0] * len(values)
    return "".join(BARS[round((x - low) / span * (len(BARS) - 1))] for x in values)


def as_text(found: Iterable[PairHistory], metric: str, *, width: int = 110) -> str:
    """A table per series; ``|`` in a trend is where a new level begins."""
    out = io.StringIO()
    console = Console(
        markup=False, emoji=False, file=out, width=width, highlight=False, no_color=True
    )
    for one in found:
        title = f"{one.title}\n{_span(one.started)}"
        if not one.trends[metric]:
            console.print(
                f"{title}\nnone of its runs has {HEADS[metric]}", markup=False, soft_wrap=True
            )
            continue
        console.print(title, markup=False, soft_wrap=True)
        table = Table()
        for at, name in enumerate(("pair", "trend", HEADS[metric], "→", "change", "new level")):
            table.add_column(name, justify="left" if at in (0, 1, 5) else "right")
        for trend in one.trends[metric]:
            table.add_row(*_line(one, trend, metric))
        console.print(table, markup=False)
    return out.getvalue()


def _span(started: Sequence[str]) -> str:
    """How many runs, and when.

    >>> _span(["2026-11-01T00:00:00+00:00"])
    '1 run, 2026-11-01T00:00:00+00:00'
    """
    if len(started) == 1:
        return f"1 run, {started[0]}"
    return f"{len(started)} runs, {started[0]} to {started[-1]}"


def render(found: Sequence[PairHistory]) -> str:
    """The page of a history.

    Raises:
        RunRefused: the extra that makes pages is not installed.
    """
    from pytest_kvquant.report.html import render_page, require_extra

    require_extra("--html")
    metrics = [one for one in SHOWN if any(series.trends.get(one.key) for series in found)]
    pairs = dict.fromkeys(t.pair for one in found for ts in one.trends.values() for t in ts)
    rows = [{"pair": pair, **dict(zip("kv", pair.split("/"), strict=True))} for pair in pairs]
    data = {"rows": rows, "series": found, "metrics": metrics, "heads": HEADS}
    return render_page(
        "history.html.j2", "history.js", data, series=found, metrics=metrics, span=_span
    )


def _series(title: str, runs: Sequence[Snapshot]) -> PairHistory:
    pairs = list(dict.fromkeys(pair for run in runs for pair in run.figures))
    trends = {}
    for metric in METRICS:
        having = [
            [(at, run.figures.get(pair, {}).get(metric)) for at, run in enumerate(runs)]
            for pair in pairs
        ]
        trends[metric] = tuple(
            _trend(pair, [(at, value) for at, value in points if value is not None])
            for pair, points in zip(pairs, having, strict=True)
            if any(value is not None for _, value in points)
        )
    return PairHistory(
        title=title,
        started=tuple(run.started for run in runs),
        builds=tuple(run.build for run in runs),
        trends=trends,
    )


def _trend(pair: str, points: Sequence[tuple[int, float]]) -> Trend:
    values = [value for _, value in points]
    return Trend(
        pair=pair,
        runs=tuple(at for at, _ in points),
        values=tuple(values),
        changes=tuple(change_points(values)),
    )


def _line(one: PairHistory, trend: Trend, metric: str) -> list[str]:
    show, values = METRICS[metric], trend.values
    bars = sparkline(values)
    marked = "".join(f"{'|' if at in trend.changes else ''}{bar}" for at, bar in enumerate(bars))
    first, last = values[0], values[-1]
    change = f"{100 * (last / first - 1):+.1f}%" if first > 0 and last > 0 else ""
    runs = [trend.runs[at] for at in trend.changes]
    began = [f"{one.started[run][:10]} {one.builds[run]}" for run in runs]
    return [trend.pair, marked, show(first), show(last), change, "\n".join(began)]
