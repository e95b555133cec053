"""What a run has finished, on disk at once: the same command after an interruption goes on from it.

A folder per command (its settings but for the outputs) with ``identity.json``: what every figure
depends on besides. One file per finished part (a cell's quality, its speed, its ceiling), written
aside, synchronized and renamed, so that a power cut leaves a whole file or none; a checksum tells
what a disk did to it later. A run that ends whole removes what it took and wrote.

Only one run at a time keeps a journal of a command. What another identity or another key has
written is never taken over.
"""

from __future__ import annotations

import datetime
import hashlib
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from filelock import FileLock, Timeout

from pytest_kvquant.errors import ResultError
from pytest_kvquant.machine.files import ASIDE, write_durably
from pytest_kvquant.results import file, nonfinite
from pytest_kvquant.results.result import Result
from pytest_kvquant.session.journal_identity import (
    IDENTITY,
    Dependencies,
    changes,
    read_identity,
)
from pytest_kvquant.session.part import FORMAT, JournalPart, age, counted, earliest, now, read_part

T = TypeVar("T")

SUFFIX = ".part"
RESULT_SUFFIX = ".result"

OLDEST = datetime.timedelta(days=14)
"""A part that was measured before is measured again: machines change in more ways than are told."""


class Journal:
    """The finished parts of one command.

    Args:
        root: where journals lie; made if need be.
        command: the settings of the run, plain data; what its outputs are called left out.
        depends: everything else that its figures depend on, by name.
        started: when this run started, UTC, ISO 8601.
        fresh: take nothing over.
        shared: another process of this run holds the lock (pytest-xdist).
        tell: told what is taken over, or why nothing is.
    """

    def __init__(
        self,
        root: Path,
        command: Mapping[str, object],
        depends: Mapping[str, str],
        *,
        started: str,
        fresh: bool,
        shared: bool,
        tell: Callable[[str], None],
    ) -> None:
        name = hashlib.sha256(msgspec.json.encode(command, order="deterministic")).hexdigest()[:24]
        self.folder = root / name
        self._started, self._tell = started, tell
        self._own: set[Path] = set()
        self._shared = shared
        self._lock: FileLock | None = None
        self.on = True
        """Whether parts are kept; off where another run of the command is, or nothing can be."""
        self.taken: dict[tuple[str, str], str] = {}
        """Parts of earlier sittings that this run took over: kind and name → that sitting."""
        try:
            self._open(Dependencies(depends=dict(depends)), fresh=fresh, shared=shared)
        except OSError as error:
            self._give_up(error)

    def find(self, kind: str, name: str, key: Mapping[str, object], of: type[T]) -> T | None:
        """A part that an earlier sitting finished; ``None`` where there is none to rely on.

        Args:
            key: what this part depends on and others of the run do not; plain data.
        """
        if not self.on:
            return None
        path = self._path(kind, name, key)
        part = read_part(path)
        if part is None or part.key != _key(key) or age(part) > OLDEST:
            return None
        try:
            record = nonfinite.decode(bytes(part.record), of)
        except (msgspec.DecodeError, ValueError):  # of another version's shape
            return None
        self._own.add(path)
        self.taken[kind, name] = part.sitting
        return record

    def disown(self, kind: str, name: str) -> None:
        """A part that was found is measured again all the same."""
        self.taken.pop((kind, name), None)

    def keep(self, kind: str, name: str, key: Mapping[str, object], record: object) -> None:
        """Put a finished part on disk; a disk that cannot take it is told, and ends nothing."""
        if not self.on:
            return
        data = nonfinite.encode(record)
        part = JournalPart(
            format=FORMAT,
            kind=kind,
            name=name,
            key=_key(key),
            sitting=self._started,
            finished=now().isoformat(timespec="seconds"),
            checksum=hashlib.sha256(data).hexdigest(),
            record=msgspec.Raw(data),
        )
        path = self._path(kind, name, key)
        try:
            write_durably(path, msgspec.json.encode(part))
        except OSError as error:
            self._give_up(error)
        else:
            self._own.add(path)

    def keep_result(self, process: str, result: Result) -> None:
        """Leave what a process of pytest-xdist has so far where the others find it."""
        if not self.on:
            return
        path = self.folder / f"{process}{RESULT_SUFFIX}"
        try:
            write_durably(path, file.encode(result))
        except OSError as error:
            self._give_up(error)

    def results(self, heard: Collection[str]) -> list[tuple[str, Result]]:
        """What processes have left that are not among those ``heard``, by name."""
        found = []
        for path in sorted(self.folder.glob(f"*{RESULT_SUFFIX}")):
            name = path.name.removesuffix(RESULT_SUFFIX)
            if name not in heard:
                with suppress(ResultError):
                    found.append((name, file.read(path)))
        return found

    def sittings(self) -> list[str]:
        """When the runs started whose parts were taken over, ascending."""
        return sorted(set(self.taken.values()))

    def finish(self) -> None:
        """The run is whole: nothing of it has to be taken over any more."""
        if self._shared:  # the process that holds the lock knows of the others
            self.close()
            return
        for path in (*self._own, *self.folder.glob(f"*{RESULT_SUFFIX}")):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            if self._lock is not None and not any(self.folder.glob(f"*{SUFFIX}")):
                for name in (IDENTITY, "lock"):
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()
        self.close()

    def close(self) -> None:
        """Let the next run of the command have it."""
        self.on = False
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open(self, identity: Dependencies, *, fresh: bool, shared: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if shared:
            return
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.on = False
            self._tell(
                "another run of this very command is under way: this one takes nothing over from "
                "a journal, and keeps none"
            )
            return
        self._lock = lock
        for pattern in (f"{ASIDE}*", f"*{RESULT_SUFFIX}"):
            for left_over in self.folder.glob(pattern):
                left_over.unlink(missing_ok=True)
        parts = [part for path in self.folder.glob(f"*{SUFFIX}") if (part := read_part(path))]
        changed = changes(read_identity(self.folder), identity)
        if parts and (fresh or changed):
            why = "--kv-fresh" if fresh else f"{', '.join(changed)} changed since"
            self._tell(
                f"{counted(parts)} finished by the run of {earliest(parts)} "
                f"{'is' if len(parts) == 1 else 'are'} measured again: {why}"
            )
        if fresh or changed:
            for path in self.folder.glob(f"*{SUFFIX}"):
                path.unlink(missing_ok=True)
            parts = []
        if parts:
            self._tell(
                f"an interrupted run of {earliest(parts)} finished {counted(parts)}: what this "
                "run still asks for is taken over (--kv-fresh measures all)"
            )
        write_durably(self.folder / IDENTITY, msgspec.json.encode(identity))
        sweep(self.folder.parent)

    def _give_up(self, error: OSError) -> None:
        self.on = False
        self._tell(
            f"finished cells cannot be journaled in {self.folder} ({error.strerror}): if this run "
            "is interrupted, the next one measures them again"
        )

    def _path(self, kind: str, name: str, key: Mapping[str, object]) -> Path:
        place = hashlib.sha256(f"{name} {_key(key)}".encode()).hexdigest()[:24]
        return self.folder / f"{kind}-{place}{SUFFIX}"


def sweep(root: Path) -> None:
    """Remove journals whose parts are all too old to be taken over, and which no run holds."""
    for identity in root.glob(f"*/{IDENTITY}"):
        folder = identity.parent
        with suppress(OSError, Timeout), FileLock(folder / "lock", timeout=0):
            paths = [*folder.glob(f"*{SUFFIX}"), identity]
            newest = max(path.stat().st_mtime for path in paths)
            if now().timestamp() - newest > OLDEST.total_seconds() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)


def _key(key: Mapping[str, object]) -> str:
    return hashlib.sha256(msgspec.json.encode(key, order="deterministic")).hexdigest()[:24]
