"""A hash over every byte of a model's files, computed once per state of each file.

Sizes and samples miss a changed weight; a full hash of a large model takes half a minute. So it is
kept, by what the file system says changes with the content: device, inode, size, the times of the
last change of content and of inode (the latter cannot be set back).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

DIGITS: Final = 16
"""Hex digits of the fingerprint of a model."""

BLOCK: Final = 1 << 22

HASH: Final = hashlib.sha256

Tell = Callable[[Path, int], None]
"""Told before a file of so many bytes is read."""


def fingerprint(files: Sequence[Path], cache: Path | None, tell: Tell | None = None) -> str:
    """Over all ``files`` of a model, in order.

    Args:
        cache: folder where hashes are kept; ``None``: nowhere. One that cannot be written is none.

    Raises:
        OSError: a file cannot be read.
    """
    digest = HASH()
    for file in files:
        digest.update(bytes.fromhex(file_hash(file, cache, tell)))
    return digest.hexdigest()[:DIGITS]


def file_hash(file: Path, cache: Path | None, tell: Tell | None = None) -> str:
    """SHA-256 of one file, 64 hex digits."""
    state = _state(file)
    kept = cache / _entry(state) if cache else None
    if kept and (known := _known(kept, state)):
        return known
    if tell:
        tell(file, state["size"])
    found = _hash(file)
    if kept and _state(file) == state:
        _keep(kept, {**state, "sha256": found})
    return found


def _state(file: Path) -> dict[str, int]:
    told = file.stat()
    return {"device": told.st_dev, "inode": told.st_ino, "size": told.st_size,
            "changed": told.st_mtime_ns, "inode_changed": told.st_ctime_ns}  # fmt: skip


def _entry(state: dict[str, int]) -> str:
    return f"{state['device']:x}-{state['inode']:x}.json"


def _known(kept: Path, state: dict[str, int]) -> str | None:
    try:
        entry = json.loads(kept.read_text(encoding="ascii"))
        found = entry.pop("sha256")
        same = entry == state and isinstance(found, str) and len(bytes.fromhex(found)) == 32
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return found if same else None


def _hash(file: Path) -> str:
    digest = HASH()
    block = bytearray(BLOCK)
    view = memoryview(block)
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(block):
            digest.update(view[:count])
    return digest.hexdigest()


def _keep(kept: Path, entry: dict[str, int | str]) -> None:
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=kept.parent, prefix=".", suffix=".part")
        part = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as stream:
                json.dump(entry, stream)
            part.replace(kept)
        finally:
            part.unlink(missing_ok=True)
