"""One row per cell, as the page, the summary and the terminal show it: plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from pytest_kvquant import format
from pytest_kvquant.matrix import Pair
from pytest_kvquant.results.baseline import DRIFTED
from pytest_kvquant.results.ceiling import Ceiling
from pytest_kvquant.results.cell import Cell
from pytest_kvquant.results.result import Result
from pytest_kvquant.results.speed import SpeedCell

Tone = Literal["good", "open", "bad"]
"""How a verdict reads: fine, undecided, broken."""

TONES: tuple[Tone, ...] = ("good", "open", "bad")
"""From the best to the worst."""

LOST = (*DRIFTED, "damaged")
"""Verdicts beside a baseline that fail."""
DECLARED = "as declared"
"""Of a pair that cannot be measured, as ``[expect]`` says."""
EXCUSED = "not supported"
"""Of a pair that the library rules out and nobody named; ``unsupported`` is one that was."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a row that a chart can show."""

    key: str
    """The field of :class:`Row`."""
    label: str
    unit: Literal["nats", "share", "signed", "ratio", "bytes", "speed"]
    better: Literal["low", "high", "zero"]
    log: bool = False
    """Whether colour follows its logarithm."""


METRICS = (
    Metric(key="kl", label="KL", unit="nats", better="low", log=True),
    Metric(key="kl_decode", label="KL, decode path", unit="nats", better="low", log=True),
    Metric(key="top1", label="top-1", unit="share", better="high"),
    Metric(key="ppl_delta", label="PPL delta", unit="signed", better="zero"),
    Metric(key="tg_ratio", label="decode ratio", unit="ratio", better="high"),
    Metric(key="memory", label="bytes per token", unit="bytes", better="low"),
)


class SpeedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Speed of a cell at one depth, in tok/s and as a ratio to f16/f16."""

    depth: int
    """Tokens in the cache."""
    pp: float | None
    tg: float | None
    pp_ratio: float | None
    """The page's script reads both ratios, by the name of the test and ``_ratio``."""
    tg_ratio: float | None


class KeptPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell keeps of f16's gain from a repeat at one distance."""

    distance: int
    """Tokens back."""
    kept: float | None
    """Share; None where f16 itself gains nothing, or where it is no number."""
    verdict: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one cell that a chart or a table can show; None where not measured."""

    pair: str
    k: str
    v: str
    verdict: str
    """The worst of quality, memory, speed and baseline, see :func:`worst_verdict`."""
    tone: Tone
    kl: float | None = None
    """Mean KL, nats."""
    kl_error: float | None = None
    """Chunk-level standard error of it."""
    kl_p999: float | None = None
    """KL that one token in a thousand exceeds."""
    top1: float | None = None
    """Share of tokens with the same argmax."""
    ppl: float | None = None
    ppl_delta: float | None = None
    chunks: int | None = None
    kl_decode: float | None = None
    """Mean KL by the decode path."""
    memory: float | None = None
    """Bytes per token of the cache, as the census found them."""
    compression_expected: float | None = None
    """What the geometry promises instead, where that is another figure."""
    compression: float | None = None
    """Bytes per token of f16/f16 over those of the pair."""
    context: int | None = None
    """The largest context that works, tokens."""
    tg_ratio: float | None = None
    """Decode speed over that of f16/f16, at the deepest depth measured."""
    speeds: tuple[SpeedPoint, ...] = ()
    recall: tuple[KeptPoint, ...] = ()
    front: bool = False
    """No passing cell is both smaller and closer to f16."""
    positions: tuple[float, ...] = ()
    histogram: tuple[int, ...] = ()


class Column(NamedTuple):
    """A column of the table of cells."""

    label: str
    field: str
    """The field of :class:`Row`."""
    text: Callable[[float], str]

    def show(self, row: Row) -> str:
        """The figure as text."""
        value = getattr(row, self.field)
        return "–" if value is None else self.text(value)

    def in_any(self, rows: Iterable[Row]) -> bool:
        """Whether a row has this figure."""
        return any(getattr(row, self.field) is not None for row in rows)


COLUMNS = (
    Column("KL, nats", "kl", format.kl),
    Column("±, nats", "kl_error", format.kl),
    Column("KL 99.9%, nats", "kl_p999", format.kl),
    Column("KL decode, nats", "kl_decode", format.kl),
    Column("top-1", "top1", format.percent),
    Column("PPL", "ppl", "{:.3f}".format),
    Column("PPL delta", "ppl_delta", format.signed),
    Column("chunks", "chunks", format.count),
    Column("bytes/token", "memory", format.count),
    Column("smaller, × f16", "compression", format.ratio),
    Column("expected", "compression_expected", format.ratio),
    Column("context, tokens", "context", format.count),
    Column("decode, × f16", "tg_ratio", format.ratio),
)


def tone(verdict: str) -> Tone:
    """How a verdict reads; whatever is neither a pass nor undecided is bad."""
    if verdict in ("pass", DECLARED):
        return "good"
    return "open" if verdict in ("inconclusive", EXCUSED) else "bad"


def rows(result: Result) -> tuple[Row, ...]:
    """One row per pair that was measured or timed, in the order of the run."""
    cells = {cell.pair: cell for cell in result.cells}
    speeds = {speed.pair: speed for speed in result.speed}
    ceilings = {ceiling.pair: ceiling for ceiling in result.ceilings}
    pairs = dict.fromkeys([*cells, *speeds, *ceilings])
    found = [_row(pair, cells.get(pair), speeds.get(pair), ceilings.get(pair)) for pair in pairs]
    front = pareto_front(found)
    return tuple(msgspec.structs.replace(row, front=row.pair in front) for row in found)


def worst_verdict(cell: Cell | None, speed: SpeedCell | None, ceiling: Ceiling | None) -> str:
    """The gravest thing that was found of a pair; one of the three is there.

    Returns:
        :data:`pytest_kvquant.results.cell.Verdict`, ``cliff``, ``drifted`` or :data:`EXCUSED`.
    """
    if cell is not None and cell.excused:
        return EXCUSED if cell.verdict == "unsupported" else DECLARED
    verdicts: list[str] = [part.verdict for part in (cell, speed, ceiling) if part is not None]
    if cell is not None and cell.baseline is not None and cell.baseline.verdict in LOST:
        verdicts.append("drifted")
    return max(verdicts, key=lambda word: TONES.index(tone(word)))


def pareto_front(rows: Sequence[Row]) -> list[str]:
    """Pairs that pass and that no other passing pair beats in both memory and KL."""
    front: list[str] = []
    best = float("inf")
    candidates = [
        (row.memory, row.kl, row.pair)
        for row in rows
        if row.tone == "good" and row.memory is not None and row.kl is not None
    ]
    for _, kl, pair in sorted(candidates):
        if kl < best:
            front.append(pair)
            best = kl
    return front


def available(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """The metrics that at least one row carries."""
    return tuple(m for m in METRICS if any(getattr(row, m.key) is not None for row in rows))


def _row(pair: str, cell: Cell | None, speed: SpeedCell | None, ceiling: Ceiling | None) -> Row:
    verdict = worst_verdict(cell, speed, ceiling)
    k, v = Pair.parse(pair)
    points = _speeds(speed)
    row = Row(
        pair=pair,
        k=k,
        v=v,
        verdict=verdict,
        tone=tone(verdict),
        context=ceiling.tokens if ceiling is not None else None,
        speeds=points,
        tg_ratio=next((one.tg_ratio for one in reversed(points) if one.tg_ratio), None),
    )
    return row if cell is None else _with_quality(row, cell)


def _with_quality(row: Row, cell: Cell) -> Row:
    if (census := cell.census) is not None:
        row = msgspec.structs.replace(
            row,
            memory=census.bytes_per_token,
            compression=census.compression_measured or census.compression_expected,
            compression_expected=_unlike(census.compression_expected, census.compression_measured),
        )
    recall = tuple(
        KeptPoint(distance=one.distance, kept=one.kept, verdict=one.verdict) for one in cell.recall
    )
    row = msgspec.structs.replace(row, recall=recall)
    if cell.quality is None:
        return row
    figures, decode, profile = cell.quality.prefill, cell.quality.decode, cell.profile
    return msgspec.structs.replace(
        row,
        kl=figures.kl_mean,
        kl_error=figures.kl_mean_chunk_se,
        kl_p999=figures.kl_p999,
        top1=figures.top1,
        ppl=figures.ppl,
        ppl_delta=figures.ppl_delta,
        chunks=figures.chunks,
        kl_decode=decode.kl_mean if decode else None,
        positions=profile.positions if profile else (),
        histogram=profile.histogram if profile else (),
    )


def _unlike(expected: float, measured: float | None) -> float | None:
    """What was expected, where it is not what was measured, to the digits that are shown."""
    same = measured is None or format.ratio(expected) == format.ratio(measured)
    return None if same else expected


def _speeds(speed: SpeedCell | None) -> tuple[SpeedPoint, ...]:
    tests = speed.tests if speed else ()
    points = []
    for depth in sorted({test.n_depth for test in tests}):
        by_kind = {test.kind: test for test in tests if test.n_depth == depth}
        pp, tg = by_kind.get("pp"), by_kind.get("tg")
        points.append(
            SpeedPoint(
                depth=depth,
                pp=pp.median_ts if pp else None,
                tg=tg.median_ts if tg else None,
                pp_ratio=pp.ratio if pp else None,
                tg_ratio=tg.ratio if tg else None,
            )
        )
    return tuple(points)
