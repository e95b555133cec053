"""One finished part of a run as the journal keeps it."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

import msgspec

FORMAT = "pytest-kvquant-journal/1"


class JournalPart(msgspec.Struct, frozen=True, kw_only=True):
    """One finished part of a run, as it lies on disk."""

    format: str
    kind: str
    name: str
    key: str
    sitting: str
    """UTC, ISO 8601: when the run started that measured it."""
    finished: str
    """UTC, ISO 8601."""
    checksum: str
    """SHA-256 over the record, hexadecimal."""
    record: msgspec.Raw


def read_part(path: Path) -> JournalPart | None:
    """A part that is whole; ``None`` for anything else."""
    try:
        part = msgspec.json.decode(path.read_bytes(), type=JournalPart)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    sound = part.format == FORMAT and part.checksum == hashlib.sha256(part.record).hexdigest()
    return part if sound else None


def counted(parts: list[JournalPart]) -> str:
    """What they are, in words."""
    kinds = ("cell", "speed", "ceiling")
    names = {"cell": "quality", "speed": "speed", "ceiling": "ceiling"}
    found = [(kind, sum(part.kind == kind for part in parts)) for kind in kinds]
    told = [
        f"the {names[kind]} of {count} pair{'s' * (count != 1)}" for kind, count in found if count
    ]
    return " and ".join(told) or "nothing"


def earliest(parts: list[JournalPart]) -> str:
    """When the first of their runs started."""
    return min((part.sitting for part in parts), default="")


def age(part: JournalPart) -> datetime.timedelta:
    """How long ago it was finished."""
    try:
        return now() - datetime.datetime.fromisoformat(part.finished)
    except (ValueError, TypeError):
        return datetime.timedelta.max


def now() -> datetime.datetime:
    """The time, UTC."""
    return datetime.datetime.now(datetime.UTC)
