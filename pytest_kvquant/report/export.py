"""A result as rows: CSV files or an SQLite database, for spreadsheets and SQL.

Tables: ``run`` (one row: the conditions), ``cells`` (a pair each), ``gates``, ``checks``,
``chunks`` (figures per chunk) and ``speed``, whose columns bear ``llama-bench``'s names where it
has one. The column ``run_id`` joins them, so that the results of many runs fit one database.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from pytest_kvquant.machine.files import replace
from pytest_kvquant.report.llama_bench import MEASURED
from pytest_kvquant.report.matrix_rows import rows
from pytest_kvquant.results.result import Result

Table = list[dict[str, object]]


def tables(result: Result) -> dict[str, Table]:
    """The rows of every table; a value is a number, text, or None."""
    run = run_id(result)
    found = {
        "run": [_run(result)],
        "cells": _cells(result),
        "gates": [
            {"pair": cell.pair, **msgspec.to_builtins(gate)}
            for cell in result.cells
            for gate in cell.gates
        ],
        "checks": [
            {"pair": cell.pair, **msgspec.to_builtins(check)}
            for cell in result.cells
            for check in cell.checks
        ],
        "chunks": _chunks(result),
        "speed": _speed(result),
    }
    return {name: [{"run_id": run, **row} for row in table] for name, table in found.items()}


def run_id(result: Result) -> str:
    """A name of the run that its own figures give it: 12 hex digits."""
    return hashlib.sha256(msgspec.json.encode(result)).hexdigest()[:12]


def to_sqlite(results: Iterable[Result], path: Path) -> int:
    """Add results to a database; a run that is there already is replaced, not doubled.

    Returns:
        Runs written.

    Raises:
        sqlite3.Error: the file is no database, or cannot be written.
    """
    written = 0
    with closing(sqlite3.connect(path)) as base, base:
        for result in results:
            for name, table in tables(result).items():
                if table:
                    _insert(base, name, table)
            written += 1
    return written


def to_csv(result: Result, folder: Path) -> list[Path]:
    """Write a file for every table that has rows, into a folder that is made if need be.

    Raises:
        OSError: it cannot be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, table in tables(result).items():
        if not table:
            continue
        path, text = folder / f"{name}.csv", io.StringIO()
        writer = csv.DictWriter(text, _columns(table), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in table)
        replace(path, text.getvalue().encode())
        made.append(path)
    return made


def _run(result: Result) -> dict[str, object]:
    environment, library = result.environment, result.environment.library
    shape = {f"shape_{k}": v for k, v in msgspec.to_builtins(result.settings).items()}
    return {
        "started": environment.started,
        "seconds": result.seconds,
        "plugin": environment.plugin,
        "model": result.model.name,
        "model_fingerprint": result.model.fingerprint,
        "corpus": result.corpus.name,
        "corpus_fingerprint": result.corpus.fingerprint,
        "tokens_hash": result.corpus.tokens_hash,
        "build": library.build,
        "library_hash": library.hash,
        "device": library.computing,
        "cpu": environment.cpu,
        "system": environment.system,
        "against": result.reference.subject,
        **shape,
    }


def _cells(result: Result) -> Table:
    cells = {cell.pair: cell for cell in result.cells}
    found = []
    for row in rows(result):
        cell = cells.get(row.pair)
        prefill = cell.quality.prefill if cell is not None and cell.quality is not None else None
        figures = msgspec.to_builtins(prefill) if prefill is not None else {}
        found.append(
            {
                "pair": row.pair,
                "type_k": row.k,
                "type_v": row.v,
                "verdict": row.verdict,
                "message": cell.message if cell is not None else None,
                "bytes_per_token": row.memory,
                "compression": row.compression,
                "context": row.context,
                "decode_kl_mean": row.kl_decode,
                **figures,
            }
        )
    return found


def _chunks(result: Result) -> Table:
    found = []
    for cell in result.cells:
        names = list(cell.per_chunk)
        for at, figures in enumerate(zip(*cell.per_chunk.values(), strict=True)):
            figure = dict(zip(names, figures, strict=True))
            found.append({"pair": cell.pair, "chunk": result.corpus.chunks[at], **figure})
    return found


def _speed(result: Result) -> Table:
    return [
        {
            "pair": cell.pair,
            "test": test.title,
            **{name: getattr(test, name) for name in MEASURED},
            "ratio": test.ratio,
            "median_ts": test.median_ts,
            "reference_ts": test.reference_ts,
            "floor": test.floor,
            "verdict": test.verdict,
        }
        for cell in result.speed
        for test in cell.tests
    ]


def _columns(table: Sequence[dict[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in table for name in row))


def _plain(value: object) -> object:
    """A list or a table as JSON text: SQL and spreadsheets have neither."""
    if isinstance(value, list | tuple | dict):
        return msgspec.json.encode(value).decode()
    return int(value) if isinstance(value, bool) else value


def _insert(base: sqlite3.Connection, name: str, table: Table) -> None:
    columns = _columns(table)
    quoted = [_quoted(column) for column in columns]
    base.execute(f"CREATE TABLE IF NOT EXISTS {_quoted(name)} ({', '.join(quoted)})")
    known = {row[1] for row in base.execute(f"PRAGMA table_info({_quoted(name)})")}
    for column in columns:
        if column not in known:
            base.execute(f"ALTER TABLE {_quoted(name)} ADD COLUMN {_quoted(column)}")
    base.execute(f"DELETE FROM {_quoted(name)} WHERE run_id = ?", (table[0]["run_id"],))
    places = ", ".join("?" * len(columns))
    base.executemany(
        f"INSERT INTO {_quoted(name)} ({', '.join(quoted)}) VALUES ({places})",
        ([_plain(row.get(column)) for column in columns] for row in table),
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
