"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

import platformdirs

ASIDE = ".writing-"
"""How names begin of files under way that a process left that was killed."""


def replace(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    A symbolic link stays one: what it points to is replaced. What is no regular file is left alone,
    for a device would be replaced by a file; nothing stays where the disk is full.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is not a regular file", str(path))
    aside = path.with_name(f".{uuid.uuid4().hex}.writing")
    try:
        with aside.open("xb") as file:
            file.write(data)
        with suppress(OSError):
            shutil.copymode(path, aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a power cut it is there whole, or as it was before.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=ASIDE)
    try:
        with os.fdopen(handle, "wb") as written:
            written.write(data)
            written.flush()
            os.fsync(written.fileno())
        Path(aside).replace(path)
    finally:
        Path(aside).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def cache_folder() -> Path:
    """Where this user's machine keeps what can be made again."""
    return Path(platformdirs.user_cache_dir("pytest-kvquant"))


def read_regular(path: Path) -> bytes:
    """What a file holds.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which could be waited for for ever.
        ValueError: no file can be called that.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a folder" if path.is_dir() else "no regular file")
    return path.read_bytes()
