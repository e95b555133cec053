"""The f16 logits: computed once, stored, checked, memory-mapped.

One file per group of chunks that were decoded together, float32 as the library gave them: figures
from a stored reference are those of a fresh one to the last bit. Files are written aside and
renamed, and carry a checksum that is compared the first time a run reads them.

The store lies in a folder that people may choose, so it counts and deletes only what it made: its
folder bears a mark, each reference is a folder named by the hash of its identity file, and only
files with names of ours go. Symbolic links are never followed, not even to count.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
from filelock import FileLock

from pytest_kvquant.inputs.store_folder import (
    ASIDE,
    IDENTITY,
    TOKENS,
    USE,
    StoreError,
    claim,
    delete,
    files_of,
    in_use,
    is_file,
    is_reference,
    last_use,
    lock,
    refuse_link,
    said,
    size_of,
    write_aside,
)
from pytest_kvquant.numerics.arrays import F32, I32

_TRAILER = struct.Struct("<8sIQ")
_MAGIC = b"kvqref01"
_GB = 1e9


class Usage(msgspec.Struct, kw_only=True):
    """What a run did with the reference, in chunks."""

    computed: int = 0
    reused: int = 0
    damaged: int = 0


class ReferenceStore:
    """The folder of all references, bounded in size: the one unused for longest goes first.

    Args:
        root: the folder; made if need be. The store is in it where it is empty or a store already,
            and in a sub-folder (:data:`SUBFOLDER`) where it holds other things.
        limit: most bytes it may hold.
        tell: told which process is waited for, where that takes more than a moment.

    Raises:
        StoreError: the folder cannot be made or written.
    """

    def __init__(
        self, root: Path, limit: int, *, tell: Callable[[str], None] = lambda _line: None
    ) -> None:
        self.limit, self.tell = limit, tell
        try:
            root.mkdir(parents=True, exist_ok=True)
            self.root = claim(root)
            with tempfile.TemporaryFile(dir=self.root):
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
        with said(self.root), self._exclusively():
            refuse_link(folder)
            folder.mkdir(exist_ok=True)
            if not is_reference(folder):
                write_aside(folder / IDENTITY, text)
            in_use(folder)  # sweeps the marks of runs that are gone
            return Reference(self, folder, rows, vocabulary)

    def evict(self, size: int, keep: Path) -> None:
        """Delete references that no run uses, oldest use first, until ``size`` more bytes fit.

        Raises:
            StoreError: more is needed than the limit or the disk allows.
        """
        with said(self.root), self._exclusively():
            sizes = self._sizes()
            by_age = sorted((folder for folder in sizes if folder != keep), key=last_use)
            for oldest in by_age:
                if sum(sizes.values()) + size <= self.limit:
                    break
                if not in_use(oldest):
                    delete(oldest)
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

    def used(self) -> int:
        """Bytes that all references take."""
        return sum(self._sizes().values())

    def _sizes(self) -> dict[Path, int]:
        return {folder: size_of(folder) for folder in self.root.iterdir() if is_reference(folder)}

    def _exclusively(self) -> AbstractContextManager[None]:
        """The lock under which references are taken into use and deleted."""
        return lock(self.root, self.tell)


class Reference:
    """Logits of the reference, by group of chunks. While it lives, no run deletes its files."""

    def __init__(self, store: ReferenceStore, folder: Path, rows: int, vocabulary: int) -> None:
        self._store, self._folder = store, folder
        self._use = FileLock(folder / f"{USE}{uuid.uuid4().hex}")
        self._use.acquire()
        self._rows, self._vocabulary = rows, vocabulary
        self._checked: set[Path] = set()
        self.usage = Usage()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the lock of this reference: another run waits, then finds what this one stored."""
        with ExitStack() as stack:
            with said(self._folder):
                stack.enter_context(lock(self._folder, self._store.tell))
            for left_over in files_of(self._folder):
                if left_over.name.startswith(ASIDE):
                    left_over.unlink(missing_ok=True)
            yield

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

    def holds(self, groups: Iterable[I32]) -> bool:
        """Whether a file is there for each of the groups; whether it is intact is not looked at."""
        return all(self._path(group).exists() for group in groups)

    def size(self, group: I32) -> int:
        """Bytes that the logits of a group take; 64-bit arithmetic whatever the vocabulary."""
        return len(group) * self._rows * self._vocabulary * 4

    def evict(self, groups: Iterable[I32]) -> None:
        """See that these groups can be stored.

        Raises:
            StoreError: they cannot.
        """
        self._store.evict(sum(self.size(group) for group in groups), self._folder)

    @contextmanager
    def writing(self, group: I32) -> Iterator[GroupWriter]:
        """Store the logits of a group, block by block; nothing is visible until all are in."""
        path = self._path(group)
        with said(self._folder):
            handle, name = tempfile.mkstemp(dir=self._folder, prefix=ASIDE)
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

    def tokens(self) -> I32 | None:
        """Tokens that were kept here, shape ``(n,)``; ``None``: none, or they are damaged."""
        path = self._folder / TOKENS
        if not is_file(path):
            return None
        data = path.read_bytes()
        body, trailer = data[: -_TRAILER.size], data[-_TRAILER.size :]
        if trailer != _TRAILER.pack(_MAGIC, zlib.crc32(body), len(body)):
            return None
        return np.frombuffer(body, np.int32)

    def keep_tokens(self, tokens: I32) -> None:
        """Keep tokens, in one step; their room is made first.

        Raises:
            StoreError: they cannot be stored.
        """
        body = np.ascontiguousarray(tokens, np.int32).tobytes()
        self._store.evict(len(body), self._folder)
        with said(self._folder):
            trailer = _TRAILER.pack(_MAGIC, zlib.crc32(body), len(body))
            write_aside(self._folder / TOKENS, body + trailer)

    def _path(self, group: I32) -> Path:
        return self._folder / f"{hashlib.sha256(group.tobytes()).hexdigest()[:24]}.f32"

    def _intact(self, path: Path, chunks: int) -> bool:
        if path.is_symlink() or not path.exists():
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
