"""The folder of the reference store: whose it is, and what in it may be counted and deleted."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_kvquant.errors import RunRefused
from pytest_kvquant.machine.locks import BESIDE, held

ASIDE = ".writing-"
"""Files under way; what a killed run left of them goes when the next one holds the lock."""
USE = "use-"
"""Files that are locked while a run uses the folder they lie in."""
IDENTITY = "identity.json"
LOCK = "lock"
TOKENS = "tokens.i32"

MARK = "pytest-kvquant-store"
"""The file that says whose folder a store is, and in which format."""
SUBFOLDER = "pytest-kvquant-references"
"""The store within a folder that holds other things."""
_FORMAT = "pytest-kvquant reference store, format 1\n"
_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# References of pytest-kvquant, computed again when missing; see https://bford.info/cachedir/
"""
_LOCKS = (LOCK, f"{LOCK}{BESIDE}")
_OF_A_REFERENCE = re.compile(
    rf"[0-9a-f]{{24}}\.f32|{re.escape(TOKENS)}|{re.escape(ASIDE)}\w+|{USE}[0-9a-f]{{32}}|"
    rf"{'|'.join(map(re.escape, _LOCKS))}",
    re.ASCII,
)
"""Names of the files in a reference's folder, its identity aside."""


class StoreError(RunRefused):
    """The store cannot be written; the message says what to do."""


@contextmanager
def said(folder: Path) -> Iterator[None]:
    """Say which folder could not be written.

    Raises:
        StoreError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"Writing the f16 reference to {folder} failed ({error.strerror}); free space there "
            "or choose another folder with --kv-store."
        ) from None


def claim(root: Path) -> Path:
    """The folder of the store, marked: the one asked for, or a sub-folder of our own."""
    for folder in (root, root / SUBFOLDER):
        refuse_link(root / SUBFOLDER)
        folder.mkdir(exist_ok=True)
        if is_file(folder / MARK) or all(map(_is_of_older_store, folder.iterdir())):
            _mark(folder)
            return folder
    raise StoreError(
        f"The folder {root / SUBFOLDER} holds other things than f16 references; choose another "
        "folder with --kv-store."
    )


def _mark(folder: Path) -> None:
    """Say whose folder it is, to us first and then to programs that make backups."""
    for name, text in ((MARK, _FORMAT), ("CACHEDIR.TAG", _TAG)):
        with suppress(FileExistsError), (folder / name).open("x", encoding="utf-8") as file:
            file.write(text)


def _is_of_older_store(path: Path) -> bool:
    """Whether an entry is one of a store's, marked or not, or just being marked."""
    return path.name == MARK or (path.name in _LOCKS and is_file(path)) or is_reference(path)


def is_reference(folder: Path) -> bool:
    """Whether the store made a folder: its name is the hash of its identity file."""
    identity = folder / IDENTITY
    if folder.is_symlink() or not folder.is_dir() or not is_file(identity):
        return False
    with suppress(OSError):
        return hashlib.sha256(identity.read_bytes()).hexdigest()[:24] == folder.name
    return False


def is_file(path: Path) -> bool:
    """Whether a path is a file itself, not what a link points to."""
    return path.is_file() and not path.is_symlink()


def refuse_link(path: Path) -> None:
    """See that a path is no link.

    Raises:
        StoreError: it is one.
    """
    if path.is_symlink():
        raise StoreError(
            f"{path} is a symbolic link, and the reference store follows none; remove the link or "
            "choose another folder with --kv-store."
        )


def lock(folder: Path, tell: Callable[[str], None]) -> AbstractContextManager[None]:
    """A folder's lock; older releases of filelock would empty the file that a link points to."""
    refuse_link(folder / LOCK)
    return held(folder / LOCK, tell)


def write_aside(path: Path, text: str | bytes) -> None:
    """Write a file in one step; what a link of that name points to is left alone."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=ASIDE)
    os.close(handle)
    try:
        Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def files_of(folder: Path) -> list[Path]:
    """What the store wrote into a reference's folder, its identity last."""
    ours = [path for path in folder.iterdir() if _OF_A_REFERENCE.fullmatch(path.name)]
    return [path for path in (*ours, folder / IDENTITY) if path.is_symlink() or path.is_file()]


def delete(folder: Path) -> None:
    """Delete a reference; with files in it that are not ours, its folder stays."""
    with suppress(OSError):
        for path in files_of(folder):
            path.unlink(missing_ok=True)
        folder.rmdir()


def size_of(folder: Path) -> int:
    """Bytes of a reference; other runs may add and rename files meanwhile."""
    size = 0
    for file in files_of(folder):
        with suppress(FileNotFoundError):
            size += file.lstat().st_size
    return size


def in_use(folder: Path) -> bool:
    """Whether a living process uses a folder; removes the marks of dead ones."""
    for path in files_of(folder):
        if not path.name.startswith(USE) or path.is_symlink():
            continue
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            return True
    return False


def last_use(folder: Path) -> float:
    """When a reference was last used, seconds since 1970."""
    return folder.stat().st_mtime
