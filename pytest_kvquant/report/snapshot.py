"""What a history needs of one run: figures by pair, a date, a build.

Made from a result, from accepted baselines, or from the files of other tools.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from pathlib import PurePath
from typing import TypeVar

import msgspec

from pytest_kvquant.errors import ResultError
from pytest_kvquant.report import matrix_rows
from pytest_kvquant.results.result import Result

T = TypeVar("T")

SCHEMA = "pytest-kvquant/snapshot/1"

FIGURES = ("kl", "top1", "ppl_delta", "tg_ratio", "memory", "tg", "pp")
"""Mean KL (nats), top-1 agreement (share), PPL delta, decode speed over f16's, bytes per token, and
tok/s of decode and prefill at the deepest depth."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One run as a point of a history."""

    schema: str = SCHEMA
    title: str
    """What has to be equal for two points to be of one line: model, text, cut, processor."""
    started: str
    """UTC, ISO 8601."""
    build: str
    figures: dict[str, dict[str, float]]
    """By pair, then by figure: some of :data:`FIGURES`."""


class BenchEntry(msgspec.Struct, frozen=True):
    """A test of ``llama-bench -o json``, under its own names."""

    type_k: str
    type_v: str
    n_prompt: int
    n_gen: int
    avg_ts: float
    """tok/s."""
    build_commit: str
    n_depth: int = 0
    test_time: str = ""
    model_filename: str = "unknown model"
    cpu_info: str | None = None
    gpu_info: str | None = None


class KldCorpus(msgspec.Struct, frozen=True):
    """The text of REFRACT's KLD axis."""

    path: str = "unknown text"


class KldAxis(msgspec.Struct, frozen=True):
    """REFRACT's KLD axis."""

    skipped: bool | None = None
    mean_kld: float | None = None
    """Nats a token."""
    same_topp_pct: float | None = None
    """Percent of tokens with the same likeliest successor."""
    corpus: KldCorpus | None = None
    ctx: int | str = "?"
    chunks: int | str = "?"


class RefractAxes(msgspec.Struct, frozen=True):
    """REFRACT's axes, as far as they are read."""

    kld: KldAxis | None = None


class RefractEnvironment(msgspec.Struct, frozen=True):
    """The build that REFRACT measured."""

    llama_cpp_commit: str | None = None
    backend: str | None = None


class RefractReport(msgspec.Struct, frozen=True):
    """A report of REFRACT, as far as it is read."""

    schema: str = ""
    candidate: str = ""
    model: str = "unknown model"
    timestamp: str = "unknown"
    axes: RefractAxes | None = None
    environment: RefractEnvironment | None = None


def of_result(result: Result) -> Snapshot:
    """The point of a result."""
    shape = result.settings
    return Snapshot(
        title=(
            f"{result.model.name} ({result.model.fingerprint}) · {result.corpus.name} "
            f"({result.corpus.fingerprint}) · {shape.ctx} tokens, {shape.scored} scored, "
            f"{shape.order} {shape.seed} · {result.environment.cpu}, "
            f"{result.environment.library.computing}"
        ),
        started=result.environment.started,
        build=result.environment.library.build,
        figures={row.pair: _of_row(row) for row in matrix_rows.rows(result)},
    )


def _of_row(row: matrix_rows.Row) -> dict[str, float]:
    deepest = row.speeds[-1] if row.speeds else None
    found = {
        **{name: getattr(row, name) for name in ("kl", "top1", "ppl_delta", "tg_ratio", "memory")},
        "tg": deepest.tg if deepest else None,
        "pp": deepest.pp if deepest else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def of_llama_bench(data: bytes, name: str) -> list[Snapshot]:
    """The points of ``llama-bench -o json``: one per build, model and machine in the file.

    The ratio is to the f16/f16 of the same file, at the deepest depth that both have.

    Args:
        name: what to call the data in a complaint.

    Raises:
        ResultError: not such a file.
    """
    entries = _json(data, name)
    if not isinstance(entries, list):
        raise ResultError(f"{name} is JSON, but not what it was taken for.")
    needed = ("type_k", "type_v", "n_prompt", "n_gen", "avg_ts", "build_commit")
    for entry in entries:
        missing = [key for key in needed if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise ResultError(f"{name}: an entry of llama-bench lacks {', '.join(missing)}.")
    groups: dict[tuple[str, str, str], list[BenchEntry]] = {}
    for entry in _converted(entries, list[BenchEntry], name):
        chip = entry.gpu_info or entry.cpu_info or "unknown machine"
        model = PurePath(entry.model_filename).name
        groups.setdefault((entry.build_commit, model, chip), []).append(entry)
    if not groups:
        raise ResultError(f"{name} holds no test of llama-bench.")
    return [
        Snapshot(
            title=f"{model} · llama-bench · {chip}",
            started=max(one.test_time for one in group) or "unknown",
            build=commit,
            figures=_speeds(group),
        )
        for (commit, model, chip), group in groups.items()
    ]


def _speeds(entries: Iterable[BenchEntry]) -> dict[str, dict[str, float]]:
    by_depth: dict[str, dict[tuple[str, int], list[float]]] = {}
    for entry in entries:
        # Entries with both a prompt and generated tokens time a mixture of the two.
        if bool(entry.n_prompt) == bool(entry.n_gen):
            continue
        kind = "pp" if entry.n_prompt else "tg"
        place = (kind, entry.n_depth)
        pair = f"{entry.type_k}/{entry.type_v}"
        by_depth.setdefault(pair, {}).setdefault(place, []).append(entry.avg_ts)
    found: dict[str, dict[str, float]] = {}
    reference = by_depth.get("f16/f16", {})
    for pair, tests in by_depth.items():
        figures: dict[str, float] = {}
        for kind in ("pp", "tg"):
            depths = [depth for known, depth in tests if known == kind]
            if depths:
                figures[kind] = statistics.median(tests[kind, max(depths)])
        shared = [depth for known, depth in tests if known == "tg" and ("tg", depth) in reference]
        if shared:
            deepest = ("tg", max(shared))
            of_f16 = statistics.median(reference[deepest])
            figures["tg_ratio"] = statistics.median(tests[deepest]) / of_f16
        found[pair] = figures
    return found


def of_refract(data: bytes, name: str) -> Snapshot:
    """The point of a report of REFRACT (``refract.report.v0.3``): its KLD axis.

    Raises:
        ResultError: not such a file, of an axis that was skipped, or of no pair.
    """
    report = _converted(_json(data, name), RefractReport, name)
    if not report.schema.startswith("refract.report."):
        raise ResultError(f"{name} is no report of REFRACT: its schema is {report.schema}.")
    kld = (report.axes or RefractAxes()).kld or KldAxis()
    if kld.skipped or kld.mean_kld is None:
        raise ResultError(f"{name}: REFRACT skipped its KLD axis; nothing of it can be compared.")
    pair = _pair_of(report.candidate, name)
    figures = {"kl": kld.mean_kld}
    if kld.same_topp_pct is not None:
        figures["top1"] = kld.same_topp_pct / 100
    corpus = PurePath((kld.corpus or KldCorpus()).path).name
    environment = report.environment or RefractEnvironment()
    return Snapshot(
        title=(
            f"{PurePath(report.model).name} · REFRACT · {corpus} · "
            f"{kld.ctx} tokens, {kld.chunks} chunks"
        ),
        started=report.timestamp,
        build=environment.llama_cpp_commit or environment.backend or "unknown",
        figures={pair: figures},
    )


def _pair_of(label: str, name: str) -> str:
    found = dict(re.findall(r"(ctk|ctv)=([\w.]+)", label))
    if set(found) != {"ctk", "ctv"}:
        raise ResultError(
            f"{name}: the candidate '{label}' names no pair of cache types (ctk=…,ctv=…)."
        )
    return f"{found['ctk']}/{found['ctv']}"


def foreign(data: bytes, name: str) -> list[Snapshot]:
    """The points of a file of another tool, whichever of the two it is.

    Raises:
        ResultError: neither.
    """
    try:
        kind = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(f"{name} is not JSON: {error}.") from None
    if isinstance(kind, list):
        return of_llama_bench(data, name)
    if isinstance(kind, dict) and str(kind.get("schema", "")).startswith("refract."):
        return [of_refract(data, name)]
    raise ResultError(f"{name} is neither a list of llama-bench -o json nor a report of REFRACT.")


def _converted(found: object, kind: type[T], name: str) -> T:
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ResultError(f"{name} is JSON, but not what it was taken for: {error}.") from None


def _json(data: bytes, name: str) -> object:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(f"{name} is not JSON: {error}.") from None


def encode(points: Iterable[Snapshot]) -> bytes:
    """Points as JSON, for ``kvquant history``."""
    return msgspec.json.format(msgspec.json.encode(list(points)), indent=2) + b"\n"


def decode(data: bytes, name: str) -> list[Snapshot]:
    """Read what :func:`encode` wrote.

    Raises:
        ResultError: not that.
    """
    try:
        points = msgspec.json.decode(data, type=list[Snapshot])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(f"{name} holds no points of a history: {error}.") from None
    if any(point.schema != SCHEMA for point in points):
        raise ResultError(f"{name} is of another version; this one reads '{SCHEMA}'.")
    return points
