"""The files of a model that is split, found by name as llama.cpp finds them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from pytest_kvquant.inputs.gguf_header import BadHeader

_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
MOST_SHARDS: Final = 4096


class Part(NamedTuple):
    """What the name of a file says about its place."""

    stem: str
    number: int
    """From 1."""
    of: int


def part_of(path: Path) -> Part | None:
    """The place of a shard, by its name; ``None`` for other names."""
    found = _NAME.fullmatch(path.name)
    return Part(found["stem"], int(found["number"]), int(found["count"])) if found else None


def name_of(stem: str, number: int, count: int) -> str:
    """How llama.cpp names a shard."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def siblings(path: Path, count: int) -> tuple[Path, ...]:
    """All files of a model that ``path`` is one of, in order.

    Args:
        count: what the header says; at most 1: the model is in one file.

    Raises:
        BadHeader: the name is not that of a shard, or some are missing.
    """
    if count <= 1:
        return (path,)
    if count > MOST_SHARDS:
        raise BadHeader(f"claims to be split into {count:,} files, so its header is damaged")
    part = part_of(path)
    if part is None or part.of != count:
        raise BadHeader(
            f"is one of {count} files of a split model and was renamed; llama.cpp finds the others "
            f"by name only: …-00001-of-{count:05d}.gguf"
        )
    files = [path.with_name(name_of(part.stem, at, count)) for at in range(1, count + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        verb = "is" if len(missing) == 1 else "are"
        raise BadHeader(f"is one of {count} files of a split model, and {shown} {verb} missing")
    return tuple(files)
