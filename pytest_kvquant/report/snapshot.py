"""What a history needs of one run: figures by pair, a date, a build.

Made from a result, from accepted baselines, or from the files of other tools.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import PurePath

import msgspec

from pytest_kvquant.errors import ResultError
from pytest_kvquant.numerics.untyped import Parsed
from pytest_kvquant.report import matrix_rows
from pytest_kvquant.results.result import Result

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


def of_result(result: Result) -> Snapshot:
    """The point of a result."""
    shape = result.settings
    return Snapshot(
        title=(
            f"{result.model.name} ({result.model.fingerprint}) · {result.corpus.name} "
            f"({result.corpus.fingerprint}) · {shape.ctx} tokens, {shape.scored} scored, "
            f"{shape.order} {shape.seed} · {result.environment.cpu}, "
            f"{result.environment.library.device}"
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
    entries = _json(data, name, list)
    needed = ("type_k", "type_v", "n_prompt", "n_gen", "avg_ts", "build_commit")
    for entry in entries:
        missing = [key for key in needed if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise ResultError(f"{name}: an entry of llama-bench lacks {', '.join(missing)}.")
    groups: dict[tuple[str, str, str], list[dict[str, Parsed]]] = {}
    for entry in entries:
        chip = str(entry.get("gpu_info") or entry.get("cpu_info") or "unknown machine")
        model = PurePath(str(entry.get("model_filename", "unknown model"))).name
        groups.setdefault((str(entry["build_commit"]), model, chip), []).append(entry)
    if not groups:
        raise ResultError(f"{name} holds no test of llama-bench.")
    return [
        Snapshot(
            title=f"{model} · llama-bench · {chip}",
            started=max(str(one.get("test_time", "")) for one in group) or "unknown",
            build=commit,
            figures=_speeds(group),
        )
        for (commit, model, chip), group in groups.items()
    ]


def _speeds(entries: Iterable[Mapping[str, Parsed]]) -> dict[str, dict[str, float]]:
    by_depth: dict[str, dict[tuple[str, int], list[float]]] = {}
    for entry in entries:
        # Entries with both a prompt and generated tokens time a mixture of the two.
        if bool(entry["n_prompt"]) == bool(entry["n_gen"]):
            continue
        kind = "pp" if entry["n_prompt"] else "tg"
        place = (kind, int(entry.get("n_depth", 0)))
        pair = f"{entry['type_k']}/{entry['type_v']}"
        by_depth.setdefault(pair, {}).setdefault(place, []).append(float(entry["avg_ts"]))
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
    report = _json(data, name, dict)
    if not str(report.get("schema", "")).startswith("refract.report."):
        raise ResultError(f"{name} is no report of REFRACT: its schema is {report.get('schema')}.")
    kld = (report.get("axes") or {}).get("kld") or {}
    if kld.get("skipped") or not isinstance(kld.get("mean_kld"), int | float):
        raise ResultError(f"{name}: REFRACT skipped its KLD axis; nothing of it can be compared.")
    pair = _pair_of(str(report.get("candidate", "")), name)
    figures = {"kl": float(kld["mean_kld"])}
    if isinstance(kld.get("same_topp_pct"), int | float):
        figures["top1"] = float(kld["same_topp_pct"]) / 100
    corpus = PurePath(str((kld.get("corpus") or {}).get("path", "unknown text"))).name
    environment = report.get("environment") or {}
    return Snapshot(
        title=(
            f"{PurePath(str(report.get('model', 'unknown model'))).name} · REFRACT · {corpus} · "
            f"{kld.get('ctx', '?')} tokens, {kld.get('chunks', '?')} chunks"
        ),
        started=str(report.get("timestamp", "unknown")),
        build=str(environment.get("llama_cpp_commit") or environment.get("backend") or "unknown"),
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


def _json(data: bytes, name: str, kind: type) -> Parsed:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(f"{name} is not JSON: {error}.") from None
    if not isinstance(found, kind):
        raise ResultError(f"{name} is JSON, but not what it was taken for.")
    return found


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
