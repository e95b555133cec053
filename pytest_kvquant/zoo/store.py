"""Where written members are kept: a file per declaration, made once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from pytest_kvquant.zoo.declaration import Member

FORMAT = 1
"""Counts what the writer does besides the declaration."""


def file_of(member: Member, folder: Path) -> Path:
    """The GGUF file of ``member`` in ``folder``, written if it is not there.

    Raises:
        OSError: the folder cannot be written.
    """
    path = folder / f"{member.name}-{digest(member)}.gguf"
    if path.exists():
        return path
    # here: the gguf package takes longer to import than a kept file to find
    from pytest_kvquant.zoo.writer import write

    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{member.name}-", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        write(part, member).replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def digest(member: Member) -> str:
    """Twelve hex digits over everything that the file is made from."""
    told = repr((FORMAT, *member)).encode()
    return hashlib.sha256(told).hexdigest()[:12]
