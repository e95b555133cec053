"""Figures that a table in the docs was made from: JSON, a line a row, so that a diff shows rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

R = TypeVar("R")


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """Rows that were kept; none where there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=list[kind]) if path.is_file() else []


def write_rows(path: Path, rows: Sequence[object]) -> None:
    """Keep rows, in place of those that were."""
    lines = ",\n".join(msgspec.json.encode(row).decode() for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
