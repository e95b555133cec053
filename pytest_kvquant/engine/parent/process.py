"""Parent side: start a worker, watch it, and turn its death into a verdict."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from pytest_kvquant.engine.messages.base import Said
from pytest_kvquant.engine.messages.cell import ShareRing
from pytest_kvquant.engine.messages.model import (
    Copied,
    CopyYourself,
    Reap,
    Reaped,
    Refusal,
    WorkerFailed,
)
from pytest_kvquant.engine.options import words
from pytest_kvquant.engine.parent import endings
from pytest_kvquant.engine.parent.engine import Engine
from pytest_kvquant.engine.parent.forked import Forked, Process
from pytest_kvquant.engine.parent.timesheet import WAITING, Timesheet
from pytest_kvquant.engine.protocol import Channel, Closed, Message, Ring, Silent
from pytest_kvquant.engine.shaders import resources
from pytest_kvquant.errors import (
    CellCrashed,
    CellError,
    CellServerLost,
    CellStrained,
    CellTimeout,
)
from pytest_kvquant.machine.escape import one_line, paragraph
from pytest_kvquant.matrix import REFERENCE

S = TypeVar("S", bound=Said)

PACKAGE_ROOT = Path(__file__).parents[3]
LOG_BYTES = 1 << 24

WATCH_SECONDS = 0.5
"""Between two looks at a machine that may begin to suffer."""

_START = (
    "import sys; sys.path[0] = sys.argv[1]; "  # in the place of the folder one is in
    "import pytest_kvquant; sys.path.remove(sys.argv[1]); "
    "from pytest_kvquant.engine.child.start import start; start()"
)
"""This package is taken from the parent's installation, and nothing else: another interpreter has
its own NumPy and its own bindings, and the folder may be a whole site-packages."""


class NoCopy(Exception):
    """A worker of which no copy can be made."""


def read_answer(message: Message, kind: type[S]) -> S:
    """A message as the class that it is of.

    Raises:
        msgspec.ValidationError: it says something else; the worker is of another version.
    """
    found: S = msgspec.convert(message.fields, kind)
    return found


class WorkerProcess:
    """One child process. Use as a context manager: it is gone when the block is left.

    Args:
        timesheet: told where the time goes, if anybody wants to know.
        server: a worker that opens no cell, with whatever it has loaded: this one is a copy of it.
        watch: asked while the worker works why the machine suffers; ``None``: it does not.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        timesheet: Timesheet | None = None,
        server: WorkerProcess | None = None,
        watch: Callable[[], str | None] | None = None,
    ) -> None:
        self._timesheet = timesheet or Timesheet()
        self.timeout = engine.timeout
        self._watch = watch
        """Asked while the worker works: why the machine suffers, ``None``: it does not."""
        self.visible = engine.visible
        """Devices that it sees, and what it calls them."""
        self._device = engine.visible.asked(engine.device)
        self._setup = engine.visible.setup(engine.setup)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        self._ring: Ring | None = None
        self.chosen: list[list[int]] = []
        """Tokens that each greedy step of the last script chose."""
        self.decode_seconds = 0.0
        """Time that the worker spent inside ``llama_decode`` so far."""
        self._log_start = 0
        self._pair = REFERENCE
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = self._launch(engine, theirs.fileno(), server)
            except BaseException:
                ours.close()
                self._log.close()
                raise
        self.channel = Channel(ours, patience=engine.timeout)

    def _launch(self, engine: Engine, line: int, server: WorkerProcess | None) -> Process:
        """A process of its own, or a copy of another worker's."""
        if server is not None:
            return Forked(server, server.fork(line, self._log.fileno()))
        with self._timesheet.part("start"):
            return subprocess.Popen(
                [
                    engine.python, "-c", _START, str(PACKAGE_ROOT), engine.directory or "",
                    str(time.perf_counter_ns()), str(line),
                ],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[line],
                env={
                    **resources(engine.directory),
                    **engine.environment.variables,
                    **engine.visible.variables,
                },
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()
        self._log.close()
        if self._ring is not None:
            self._ring.close()

    def fork(self, line: int, log: int) -> int:
        """Make a copy of this worker; its process id.

        Args:
            line: descriptor of the socket that the copy answers on.
            log: descriptor of the file that it prints to.

        Raises:
            NoCopy: its process has threads, which a copy would lack.
        """
        self._tell(CopyYourself())
        self.channel.send_fd(line)
        self.channel.send_fd(log)
        while (message := self._receive()).name != Copied.NAME:
            pass
        copied = read_answer(message, Copied)
        if not copied.pid:
            raise NoCopy(f"the worker has {copied.threads} threads")
        return copied.pid

    def reap(self, pid: int, *, kill: bool, patience: float) -> int | None:
        """How a copy ended, after ``patience`` seconds at most; ``None`` while it runs."""
        try:
            return self.exchange(Reap(pid=pid, kill=kill, patience=patience), Reaped).code
        except CellError:  # whoever could tell is gone itself
            return -signal.SIGKILL if kill else None

    def exchange(
        self,
        said: Said,
        answer: type[S],
        payload: bytes = b"",
        *,
        on_message: Callable[[Message], None] = lambda _message: None,
    ) -> S:
        """Send a message and wait for its answer; what comes before goes to ``on_message``."""
        self._tell(said, payload)
        while (message := self._receive()).name != answer.NAME:
            on_message(message)
        return read_answer(message, answer)

    def log(self) -> str:
        """The last lines that the library printed, and the one that names a cause."""
        return endings.quoted(self.log_text())

    def log_text(self) -> str:
        """What the library printed since the cell began, as far as it is kept (its end)."""
        size = self._log_size()
        start = max(self._log_start, size - LOG_BYTES)
        tail = os.pread(self._log.fileno(), LOG_BYTES, start)
        return paragraph(str(self.visible.told(tail.decode("utf-8", errors="replace"))))

    def _log_size(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    def _share(self, vocabulary: int) -> Ring:
        if self._ring is None:
            self._ring = Ring.create(vocabulary=vocabulary)
            slots, rows = self._ring.slots, self._ring.rows
            self._tell(ShareRing(slots=slots, rows=rows, vocabulary=vocabulary))
            self.channel.send_fd(self._ring.fd)
        return self._ring

    def _ask_for_payload(
        self, said: Said, answer: type[S], payload: bytes = b""
    ) -> tuple[S, bytes]:
        self._tell(said, payload)
        while (message := self._receive()).name != answer.NAME:
            pass
        return read_answer(message, answer), message.payload

    def _tell(self, said: Said, payload: bytes = b"") -> None:
        try:
            self.channel.tell(said, payload)
        except Closed:
            raise self._death() from None
        except Silent:
            raise self._silence() from None

    def _wait_and_watch(self, watch: Callable[[], str | None]) -> None:
        """Wait for a message while the machine does not suffer.

        Raises:
            CellStrained: it does; the worker is to be ended.
        """
        waited = 0.0
        while True:
            if (why := watch()) is not None:
                raise CellStrained(
                    f"It was stopped before the machine suffered more: {why}.", log=self.log()
                )
            if self.channel.ready(WATCH_SECONDS) or waited >= self.timeout:
                return
            waited += WATCH_SECONDS

    def _receive(self) -> Message:
        try:
            with self._timesheet.part(WAITING):
                if self._watch is not None:
                    self._wait_and_watch(self._watch)
                message = self.channel.receive(self.timeout)
                message = message._replace(fields=self.visible.in_fields(message.fields))
        except Closed:
            raise self._death() from None
        except Silent:
            raise self._silence() from None
        self._timesheet.told(message.fields.pop("spans", ()))
        if message.name == Refusal.NAME:
            why = read_answer(message, Refusal)
            raise endings.refused(one_line(why.message), self.log_text(), kind=why.kind)
        if message.name == WorkerFailed.NAME:
            why = read_answer(message, WorkerFailed)
            text = f"The worker failed: {why.kind}: {why.message}."
            raise CellCrashed(one_line(text), log=self.log())
        return message

    def _silence(self) -> CellTimeout:
        return CellTimeout(
            f"The worker was silent for {self.timeout:g} s and was killed; if it is only slow, "
            "raise --kv-timeout, or lower --kv-batch: it is heard from after each batch.",
            log=self.log(),
        )

    def _death(self) -> CellError:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return CellCrashed("The worker hung up but did not end.", log=self.log())
        error = endings.died(code, self.log_text())
        if isinstance(error, CellServerLost):
            return endings.with_servers(error, words(self._setup, "rpc"))
        return error
