"""The f16 logits: computed once, stored, checked, memory-mapped.

One file per group of chunks that were decoded together, float32 as the library gave them: figures
from a stored reference are those of a fresh one to the last bit. Files are written aside and
renamed, and carry a checksum that is compared the first time a run reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from pytest_kvquant.errors import RunRefused

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]

_TRAILER = struct.Struct("<8sIQ")
_MAGIC = b"kvqref01"
_GB = 1e9
_ASIDE = ".writing-"
"""Files under way; what a killed run left of them goes when the next one holds the lock."""
_USE = "use-"
"""Files that are locked while a run uses the folder they lie in."""


class StoreError(RunRefused):
    """The store cannot be written; the message says what to do."""


class Usage(msgspec.Struct, kw_only=True):
    """What a run did with the reference, in chunks."""

    computed: int = 0
    reused: int = 0
    damaged: int = 0


class ReferenceStore:
    """The folder of all references, bounded in size: the one unused for longest goes first.

    Args:
        root: the folder; made if need be.
        limit: most bytes it may hold.

    Raises:
        StoreError: the folder cannot be made or written.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self.limit = root, limit
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            raise StoreError(
                f"The reference store {root} cannot be written ({error.strerror}); "
                "choose another folder with --kv-store."
            ) from None

    def open(self, identity: Mapping[str, object], *, rows: int, vocabulary: int) -> Reference:
        """The reference of one model, shape, build and device.

        Args:
            identity: everything that its logits depend on, except the tokens; plain data.
            rows: scored tokens per chunk.
        """
        text = json.dumps(identity, sort_keys=True)
        folder = self.root / hashlib.sha256(text.encode()).hexdigest()[:24]
        with _said(self.root), self._exclusively():
            folder.mkdir(exist_ok=True)
            (folder / "identity.json").write_text(text, encoding="utf-8")
            _in_use(folder)  # sweeps the marks of runs that are gone
            return Reference(self, folder, rows, vocabulary)

    def make_room(self, size: int, keep: Path) -> None:
        """Delete references that no run uses, oldest use first, until ``size`` more bytes fit.

        Raises:
            StoreError: more is needed than the limit or the disk allows.
        """
        with _said(self.root), self._exclusively():
            sizes = {folder: _size(folder) for folder in self.root.iterdir() if folder.is_dir()}
            by_age = sorted((folder for folder in sizes if folder != keep), key=_last_use)
            for oldest in by_age:
                if sum(sizes.values()) + size <= self.limit:
                    break
                if not _in_use(oldest):
                    shutil.rmtree(oldest, ignore_errors=True)
                    del sizes[oldest]
            free = shutil.disk_usage(self.root).free
        own = sizes.pop(keep, 0) + size
        others = sum(sizes.values())
        if own + others > self.limit:
            used = f" while other runs use {others / _GB:.2g} GB there" if others else ""
            raise StoreError(
                f"The f16 reference needs {own / _GB:.2g} GB{used}, more than --kv-store-limit "
                f"{self.limit / _GB:g} GB; raise it, or lower --kv-chunks or --kv-scored."
            )
        if size > free:
            raise StoreError(
                f"The f16 reference needs {size / _GB:.2g} GB and {self.root} has "
                f"{free / _GB:.2g} GB free; choose another folder with --kv-store, or lower "
                "--kv-chunks or --kv-scored."
            )

    def _exclusively(self) -> FileLock:
        """The lock under which references are taken into use and deleted."""
        return FileLock(self.root / "lock")


class Reference:
    """Logits of the reference, by group of chunks. While it lives, no run deletes its files."""

    def __init__(self, store: ReferenceStore, folder: Path, rows: int, vocabulary: int) -> None:
        self._store, self._folder = store, folder
        self._use = FileLock(folder / f"{_USE}{uuid.uuid4().hex}")
        self._use.acquire()
        self._rows, self._vocabulary = rows, vocabulary
        self._checked: set[Path] = set()
        self.usage = Usage()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the lock of this reference: another run waits, then finds what this one stored."""
        lock = FileLock(self._folder / "lock")
        with _said(self._folder):
            lock.acquire()
        try:
            for left_over in self._folder.glob(f"{_ASIDE}*"):
                left_over.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def missing(self, groups: Iterable[I32]) -> list[int]:
        """Numbers of the groups that are not stored or are damaged; counts what is there."""
        absent = []
        for number, group in enumerate(groups):
            path = self._path(group)
            if path in self._checked:
                continue
            if self._intact(path, len(group)):
                self._checked.add(path)
                self.usage.reused += len(group)
            else:
                absent.append(number)
        return absent

    def size(self, group: I32) -> int:
        """Bytes that the logits of a group take; 64-bit arithmetic whatever the vocabulary."""
        return len(group) * self._rows * self._vocabulary * 4

    def make_room(self, groups: Iterable[I32]) -> None:
        """See that these groups can be stored.

        Raises:
            StoreError: they cannot.
        """
        self._store.make_room(sum(self.size(group) for group in groups), self._folder)

    @contextmanager
    def writing(self, group: I32) -> Iterator[GroupWriter]:
        """Store the logits of a group, block by block; nothing is visible until all are in."""
        path = self._path(group)
        with _said(self._folder):
            handle, name = tempfile.mkstemp(dir=self._folder, prefix=_ASIDE)
            try:
                with os.fdopen(handle, "wb") as file:
                    writer = GroupWriter(file)
                    yield writer
                    file.write(_TRAILER.pack(_MAGIC, writer.checksum, writer.written))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(path)
            finally:
                Path(name).unlink(missing_ok=True)
        self._checked.add(path)
        self.usage.computed += len(group)

    def rows(self, group: I32, within: int, first: int, count: int) -> F32:
        """Rows ``first`` … of chunk ``within`` of a group, shape ``(count, vocabulary)``.

        Mapped for this one read, so that what a run has read does not stay in its memory.
        """
        offset = (within * self._rows + first) * self._vocabulary * 4
        shape = (count, self._vocabulary)
        try:
            return np.memmap(self._path(group), np.float32, "r", offset=offset, shape=shape)
        except (OSError, ValueError):
            raise StoreError(
                f"The f16 reference in {self._folder} vanished or was cut while it was in use; "
                "run again."
            ) from None

    def _path(self, group: I32) -> Path:
        return self._folder / f"{hashlib.sha256(group.tobytes()).hexdigest()[:24]}.f32"

    def _intact(self, path: Path, chunks: int) -> bool:
        if not path.exists():
            return False
        expected = chunks * self._rows * self._vocabulary * 4
        checksum, left = 0, expected
        with suppress(OSError), path.open("rb") as file:
            while left and (part := file.read(min(left, 1 << 22))):
                checksum = zlib.crc32(part, checksum)
                left -= len(part)
            if left == 0 and file.read() == _TRAILER.pack(_MAGIC, checksum, expected):
                os.utime(path.parent)
                return True
        self.usage.damaged += chunks
        return False


class GroupWriter:
    """Appends blocks of logits and keeps their checksum."""

    def __init__(self, file: object) -> None:
        self._file = file
        self.checksum, self.written = 0, 0

    def append(self, logits: F32) -> None:
        """Add a block, shape ``(n, vocabulary)``."""
        data = np.ascontiguousarray(logits).data.cast("B")
        self.checksum = zlib.crc32(data, self.checksum)
        self.written += data.nbytes
        self._file.write(data)  # type: ignore[attr-defined]


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"Writing the f16 reference to {folder} failed ({error.strerror}); free space there "
            "or choose another folder with --kv-store."
        ) from None


def _size(folder: Path) -> int:
    """Bytes in a folder; other runs may add and rename files meanwhile."""
    size = 0
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def _in_use(folder: Path) -> bool:
    """Whether a living process uses a folder; removes the marks of dead ones."""
    for path in folder.glob(f"{_USE}*"):
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            return True
    return False


def _last_use(folder: Path) -> float:
    return folder.stat().st_mtime
