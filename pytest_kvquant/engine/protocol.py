"""Messages and the shared-memory ring between a run and its workers.

A message is a name and fields (JSON), with bytes behind it where there is bulk (tokens, a
serialized cache). Logits go through the ring: anonymous shared memory that both sides map, so
nothing is copied through the pipe and nothing is left behind however either side dies.

Standard library and NumPy only: the worker imports this under whatever interpreter has the right
llama-cpp-python.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import select
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.messages import base

_HEAD = struct.Struct("<IQ")
"""Length of the JSON, length of the bytes behind it."""


_LONGEST = 1e6
"""Seconds: the system's calls count milliseconds in 32 bits."""


S = TypeVar("S", bound=base.Said)


class Message(NamedTuple):
    """One message: ``name`` says what it is, ``fields`` is plain data, ``payload`` is bulk."""

    name: str
    fields: dict[str, object]
    payload: bytes = b""

    def read(self, kind: type[S]) -> S:
        """As the class that it is of; see :func:`pytest_kvquant.engine.messages.base.read`."""
        return base.read(self.fields, kind)


class Closed(Exception):
    """The other side is gone."""


class Silent(Exception):
    """No message came in time, or none was taken."""


class Channel:
    """Messages over one stream socket, in order, both ways.

    Args:
        patience: most seconds that :meth:`send` waits for the other side to take more; ``None``
            waits for ever.
    """

    def __init__(self, sock: socket.socket, patience: float | None = None) -> None:
        self._socket = sock
        self.spans: list[tuple[str, int, int]] = []
        """What this side did since its last message: part, start and end, in nanoseconds of
        ``time.perf_counter_ns``. They go with the next message, in its field ``spans``."""
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        if patience is not None:
            whole, part = divmod(min(patience, _LONGEST), 1)
            value = struct.pack("@ll", int(whole), int(part * 1e6) + 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def tell(self, said: base.Said, payload: bytes = b"") -> None:
        """Send one message.

        Raises:
            Silent: the other side took nothing for as long as patience lasts.
            Closed: the other side is gone.
        """
        self.send(said.NAME, payload, **said.fields)

    def send(self, name: str, payload: bytes = b"", /, **fields: object) -> None:
        """Send one message by its name and its fields.

        Raises:
            Silent: the other side took nothing for as long as patience lasts.
            Closed: the other side is gone.
        """
        if self.spans:
            fields["spans"] = self.spans.copy()
            self.spans.clear()
        head = json.dumps([name, fields], separators=(",", ":"), default=base.plain).encode()
        try:
            self._socket.sendall(_HEAD.pack(len(head), len(payload)) + head)
            if payload:
                self._socket.sendall(payload)
        except BlockingIOError:
            raise Silent from None
        except OSError as error:
            raise Closed from error

    def receive(self, timeout: float | None = None) -> Message:
        """The next message.

        Args:
            timeout: most seconds to wait for it; ``None`` waits for ever.

        Raises:
            Silent: none came whole within ``timeout``.
            Closed: the other side is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        head_size, payload_size = _HEAD.unpack(self._exactly(_HEAD.size, deadline))
        name, fields = json.loads(self._exactly(head_size, deadline))
        return Message(name, fields, self._exactly(payload_size, deadline))

    @contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """The time in this block is told with the next message."""
        begun = time.perf_counter_ns()
        try:
            yield
        finally:
            self.spans.append((part, begun, time.perf_counter_ns()))

    def send_fd(self, fd: int) -> None:
        """Hand over a file descriptor; the next :meth:`receive_fd` of the other side takes it."""
        try:
            socket.send_fds(self._socket, [b"\0"], [fd])
        except OSError as error:
            raise Closed from error

    def receive_fd(self) -> int:
        """Take over the file descriptor that :meth:`send_fd` handed."""
        _, fds, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not fds:
            raise Closed
        return fds[0]

    def pending(self) -> bool:
        """Whether a message is waiting."""
        return self._wait(time.monotonic())

    def ready(self, timeout: float) -> bool:
        """Whether a message begins to come within so many seconds, or the other side hangs up."""
        return self._wait(time.monotonic() + timeout)

    def close(self) -> None:
        """Hang up; the other side's next call raises :class:`Closed`.

        Whoever else holds this end keeps the line open no longer: the worker's own watch does.
        """
        with suppress(OSError):  # the other side was first
            self._socket.shutdown(socket.SHUT_WR)
        self.let_go()

    def let_go(self) -> None:
        """Close this process's end, of a line that another process goes on speaking on."""
        self._socket.close()

    def _wait(self, deadline: float) -> bool:
        left = max(0.0, deadline - time.monotonic())
        return bool(self._readable.poll(math.ceil(min(left, _LONGEST) * 1000)))

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            if deadline is not None and not self._wait(deadline):
                raise Silent
            try:
                part = self._socket.recv(min(size - len(parts), 1 << 20))
            except OSError as error:
                raise Closed from error
            if not part:
                raise Closed
            parts += part
        return bytes(parts)


class Ring:
    """Shared slots of logits, each ``rows × vocabulary`` float32.

    The worker fills a free slot and says so; the parent frees it when it has looked. Who owns a
    slot is said in messages, so the memory needs no locks.
    """

    def __init__(self, fd: int, slots: int, rows: int, vocabulary: int) -> None:
        self.fd = fd
        self.slots, self.rows, self.vocabulary = slots, rows, vocabulary
        self._map = mmap.mmap(fd, slots * rows * vocabulary * 4)
        self._array = np.frombuffer(self._map, np.float32).reshape(slots, rows, vocabulary)

    @classmethod
    def create(cls, *, vocabulary: int, budget: int = 128 << 20) -> Ring:
        """Make the memory, in the parent; what is never written to takes none.

        Args:
            vocabulary: entries per row.
            budget: most bytes in all, but for one row a slot.
        """
        slots = 2
        rows = max(1, budget // (slots * vocabulary * 4))
        fd = _anonymous_memory(slots * rows * vocabulary * 4)
        return cls(fd, slots, rows, vocabulary)

    def slot(self, index: int) -> npt.NDArray[np.float32]:
        """View of one slot, shape ``(rows, vocabulary)``."""
        view: npt.NDArray[np.float32] = self._array[index]
        return view

    def close(self) -> None:
        """Give the memory back (this side's share of it)."""
        del self._array
        with suppress(BufferError):  # a caller still holds a view; the memory goes with it
            self._map.close()
        os.close(self.fd)


def _anonymous_memory(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd: int = os.memfd_create("pytest-kvquant")
    else:  # macOS: a file without a name
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
