"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path


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
