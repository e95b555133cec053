"""Parent side: start a worker, talk to it, watch it, and turn its death into a verdict."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.census import Census, from_data
from pytest_kvquant.engine.parent import endings
from pytest_kvquant.engine.parent.forked import Forked, Process
from pytest_kvquant.engine.parent.timesheet import WAITING, Timesheet
from pytest_kvquant.engine.protocol import Channel, Closed, Message, Ring, Silent
from pytest_kvquant.engine.shaders import resources
from pytest_kvquant.errors import (
    CellCrashed,
    CellError,
    CellStrained,
    CellTimeout,
)
from pytest_kvquant.escape import one_line, paragraph
from pytest_kvquant.machine.environment import Environment
from pytest_kvquant.matrix import REFERENCE, Pair

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


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """How workers are started: which interpreter, which library, which environment."""

    python: str = sys.executable
    directory: str | None = None
    """The build to measure; ``None`` is the one that llama-cpp-python brought."""
    device: str | None = None
    """The ggml device to use alone; ``None`` leaves the choice to llama.cpp."""
    setup: dict[str, Any] = {}
    """Options of llama.cpp by name, of its model and its contexts; none: its defaults."""
    environment: Environment
    timeout: float
    """Seconds of silence after which a worker is taken for hung."""


class BatchShape(msgspec.Struct, frozen=True, kw_only=True):
    """How chunks are cut and batched. All of it can change the last bits of a figure."""

    ctx: int
    scored: int
    sequences: int
    batch: int
    ubatch: int
    threads: int


class LogitsBlock(NamedTuple):
    """A block of scored logits in shared memory; valid until the next one is asked for."""

    chunk: int
    first: int
    logits: npt.NDArray[np.float32]


class StoredSide(NamedTuple):
    """How a cell stores one side of one layer of its cache."""

    layer: int
    side: str
    """``K`` or ``V``."""
    type: str
    """ggml name of the cache's own tensor."""
    rotation: int
    """Size of the Hadamard matrix by which the build turns rows before; 1: none."""
    elements: int
    """Of a stored row."""


class QuantizedRows(NamedTuple):
    """What came back of rows sent through a type's reference quantizer."""

    back: npt.NDArray[np.float32]
    """Shape as sent."""
    block: int
    bytes: int
    """Of a block."""
    equal: float
    """Share of bytes that ``ggml_quantize_chunk`` writes alike."""


class NoCopy(Exception):
    """A worker of which no copy can be made."""


class Worker:
    """One child process. Use as a context manager: it is gone when the block is left.

    Args:
        timesheet: told where the time goes, if anybody wants to know.
        server: a worker that has loaded library and model and opens no cell: this one is a copy of
            it.

    Every method raises :class:`CellError` or a subclass of it when the worker dies, falls silent
    or refuses; the message says which in words, ``.log`` carries the end of the library's log.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        timesheet: Timesheet | None = None,
        server: Worker | None = None,
        watch: Callable[[], str | None] | None = None,
    ) -> None:
        self._timesheet = timesheet or Timesheet()
        self.timeout = engine.timeout
        self._watch = watch
        """Asked while the worker works: why the machine suffers, ``None``: it does not."""
        self._device, self._setup = engine.device, engine.setup
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

    def _launch(self, engine: Engine, line: int, server: Worker | None) -> Process:
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
                env={**resources(engine.directory), **engine.environment.variables},
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Worker:
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

    def library(self, directory: str | None, *, full: bool = False) -> dict[str, Any]:
        """Load the library; with ``full`` its identity comes back."""
        servers = self._setup.get("rpc", [])
        return self._ask("library", directory=directory, full=full, servers=servers).fields

    def model(self, path: str, *, gpu_layers: int, vocabulary_only: bool = False) -> dict[str, Any]:
        """Load the model, or its vocabulary only: ``vocabulary``, ``bos`` (``None``: it wants
        none), its chat ``template`` (``None``: it brings none), ``texts`` of its markers."""
        return self._ask(
            "model",
            path=path,
            gpu_layers=gpu_layers,
            device=self._device,
            vocabulary_only=vocabulary_only,
            setup=self._setup,
        ).fields

    def tokenize(self, text: bytes, *, special: bool = False) -> npt.NDArray[np.int32]:
        """Tokens of a UTF-8 text, shape ``(n,)``.

        Args:
            special: whether the words of a chat template's markers are their tokens.
        """
        answer = self._ask("tokenize", text, answer="tokens", special=special)
        return np.frombuffer(answer.payload, np.int32)

    def detokenize(self, tokens: npt.NDArray[np.int32]) -> bytes:
        """The text of tokens, UTF-8."""
        return self._ask("detokenize", tokens.astype(np.int32).tobytes(), answer="text").payload

    def open(self, pair: Pair, shape: BatchShape) -> dict[str, Any]:
        """Make the context of a cell."""
        self._pair = pair
        return self._ask("open", answer="opened", **_context_fields(pair, shape)).fields

    def stored(self, pair: Pair, shape: BatchShape) -> list[StoredSide]:
        """How a small context of a pair stores each side of each layer; the open one stays."""
        fields = _context_fields(pair, msgspec.structs.replace(shape, sequences=1))
        found = self._ask("stored", **fields).fields["places"]
        return [StoredSide(*row) for row in found]

    def open_healthy(
        self, sides: Sequence[StoredSide], heads: Mapping[int, int], shape: BatchShape
    ) -> None:
        """Make an ``f16/f16`` context whose rows are rounded as those of a cell.

        Args:
            sides: as :meth:`stored` tells of the cell's build.
            heads: KV heads by layer.
        """
        self._pair = REFERENCE
        self._ask(
            "open_healthy",
            answer="opened",
            **_context_fields(REFERENCE, shape),
            places=sides,
            heads=list(heads.items()),
        )

    def quantizer(self, name: str, rows: npt.NDArray[np.float32]) -> QuantizedRows:
        """Rows of shape ``(rows, elements)`` through a type's reference quantizer and back."""
        sent = np.ascontiguousarray(rows, np.float32)
        answer = self._ask("quantizer", sent.tobytes(), type=name, elements=sent.shape[1])
        back = np.frombuffer(answer.payload, np.float32).reshape(sent.shape)
        fields = answer.fields
        return QuantizedRows(back, fields["block"], fields["bytes"], fields["equal"])

    def steady(self, pair: Pair, shape: BatchShape) -> dict[str, Any]:
        """Bytes left by device after ``decode`` blocks of ``tokens`` tokens and ``contexts``."""
        return self._ask("steady", **_context_fields(pair, shape)).fields

    def reopen(self, shape: BatchShape) -> None:
        """Make the context of the same cell again, in another shape."""
        self.open(self._pair, shape)

    def score(
        self,
        chunks: npt.NDArray[np.int32],
        shape: BatchShape,
        vocabulary: int,
        *,
        first: int = 0,
        enough: Callable[[int], bool] = lambda _done: False,
    ) -> Iterator[LogitsBlock]:
        """Scored logits of ``chunks`` by the prefill path, while the worker decodes on.

        Args:
            chunks: tokens, shape ``(n, ctx)``.
            first: number that the first of them gets.
            enough: told how many of these chunks are complete, says whether to stop there. The
                worker may be one batch ahead.

        Yields:
            Blocks in order, rows of one chunk at a time.
        """
        ring = self._share(shape.scored, vocabulary)
        self._send(
            "score",
            chunks.astype(np.int32).tobytes(),
            ctx=shape.ctx,
            scored=shape.scored,
            sequences=shape.sequences,
            first=first,
        )
        rows_seen, stopped = 0, False
        while (message := self._receive()).name != "scored":
            if message.name != "rows":
                continue
            fields = message.fields
            if not stopped:
                logits = ring.slot(fields["slot"])[: fields["rows"]]
                yield LogitsBlock(fields["chunk"], fields["first"], logits)
            self._send("free", slot=fields["slot"])
            rows_seen += fields["rows"]
            complete, partial = divmod(rows_seen, shape.scored)
            if not partial and not stopped and enough(complete):
                stopped = True
                self._send("stop")
        self.decode_seconds += message.fields["decode_ns"] / 1e9

    def fork(self, line: int, log: int) -> int:
        """Make a copy of this worker; its process id.

        Args:
            line: descriptor of the socket that the copy answers on.
            log: descriptor of the file that it prints to.

        Raises:
            NoCopy: its process has threads, which a copy would lack.
        """
        self._send("fork")
        self.channel.send_fd(line)
        self.channel.send_fd(log)
        while (message := self._receive()).name != "forked":
            pass
        if not message.fields["pid"]:
            raise NoCopy(f"the worker has {message.fields['threads']} threads")
        return int(message.fields["pid"])

    def reap(self, pid: int, *, kill: bool, patience: float) -> int | None:
        """How a copy ended, after ``patience`` seconds at most; ``None`` while it runs."""
        try:
            code = self._ask("reap", answer="reaped", pid=pid, kill=kill, patience=patience)
        except CellError:  # whoever could tell is gone itself
            return -signal.SIGKILL if kill else None
        found: int | None = code.fields["code"]
        return found

    def census(self) -> Census:
        """What the cache of the opened cell holds."""
        return from_data(self._ask("census").fields)

    def operations(self, pair: Pair, *, threads: int) -> dict[str, list[dict[str, Any]]]:
        """Which operations of a pair run on which device, by path, from a small context of it.

        See :func:`pytest_kvquant.engine.child.op_census.take`.
        """
        fields = self._ask("operations", type_k=pair.k, type_v=pair.v, threads=threads).fields
        paths: dict[str, list[dict[str, Any]]] = fields["paths"]
        return paths

    def run_script(
        self, steps: Sequence[Sequence[Any]], vocabulary: int, *, rows: int
    ) -> Iterator[LogitsBlock]:
        """Logits of a script of cache operations, in order; ``chunk`` is the step's number.

        Args:
            steps: see :mod:`pytest_kvquant.engine.child.script`.
            rows: most rows of logits that one step makes.

        Yields:
            Blocks, each valid until the next is asked for. Afterwards ``chosen`` has the tokens
            of each greedy step.
        """
        ring = self._share(rows, vocabulary)
        self._send("script", steps=steps)
        while (message := self._receive()).name != "script_done":
            if message.name != "rows":
                continue
            fields = message.fields
            logits = ring.slot(fields["slot"])[: fields["rows"]]
            yield LogitsBlock(fields["chunk"], fields["first"], logits)
            self._send("free", slot=fields["slot"])
        self.chosen = message.fields["chosen"]
        self.decode_seconds += message.fields["decode_ns"] / 1e9

    def probe_reference(
        self, tokens: npt.NDArray[np.int32], folder: Path, singles: Sequence[int]
    ) -> None:
        """Leave in ``folder`` what the open ``f16/f16`` cell stores for some tokens.

        Args:
            singles: for each run, how many of the tokens come one at a time, at the end.
        """
        self._ask("probe_reference", tokens.tobytes(), folder=str(folder), singles=list(singles))

    def probe(
        self,
        tokens: npt.NDArray[np.int32],
        folder: Path,
        singles: Sequence[int],
        widths: Sequence[tuple[int, int]],
    ) -> dict[str, Any]:
        """Compare the open cell with that: ``figures``, ``logits`` (KL by path), ``problem``."""
        return self._ask(
            "probe",
            tokens.tobytes(),
            folder=str(folder),
            singles=list(singles),
            widths=list(widths),
        ).fields

    def emulate_cell(
        self,
        tokens: npt.NDArray[np.int32],
        folder: Path,
        sides: Sequence[tuple[int, int, str, str, int, int]],
    ) -> dict[str, Any]:
        """Play a healthy cell on the open ``f16/f16`` one: ``propagation`` and ``kl``.

        Args:
            sides: cache, place, side; type, rotation, elements of a head.
        """
        return self._ask("emulate_cell", tokens.tobytes(), folder=str(folder), sides=sides).fields

    def exchange(
        self,
        name: str,
        payload: bytes = b"",
        /,
        *,
        answer: str,
        on_message: Callable[[Message], None] = lambda _message: None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Send a message and wait for its answer; what comes before goes to ``on_message``."""
        self._send(name, payload, **fields)
        while (message := self._receive()).name != answer:
            on_message(message)
        return message.fields

    def log(self) -> str:
        """The last lines that the library printed, and the one that names a cause."""
        return endings.quoted(self.log_text())

    def log_text(self) -> str:
        """What the library printed since the cell began, as far as it is kept (its end)."""
        size = self._log_size()
        start = max(self._log_start, size - LOG_BYTES)
        tail = os.pread(self._log.fileno(), LOG_BYTES, start)
        return paragraph(tail.decode("utf-8", errors="replace"))

    def _log_size(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    def _share(self, rows: int, vocabulary: int) -> Ring:
        if self._ring is None:
            self._ring = Ring.create(rows=rows, vocabulary=vocabulary)
            self._send("ring", slots=self._ring.slots, rows=self._ring.rows, vocabulary=vocabulary)
            self.channel.send_fd(self._ring.fd)
        return self._ring

    def _ask(self, name: str, payload: bytes = b"", *, answer: str = "", **fields: Any) -> Message:
        self._send(name, payload, **fields)
        while (message := self._receive()).name != (answer or name):
            pass
        return message

    def _send(self, name: str, payload: bytes = b"", /, **fields: Any) -> None:
        try:
            self.channel.send(name, payload, **fields)
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
        except Closed:
            raise self._death() from None
        except Silent:
            raise self._silence() from None
        self._timesheet.told(message.fields.pop("spans", ()))
        if message.name == "refused":
            raise endings.refused(
                one_line(message.fields["message"]), self.log_text(), kind=message.fields["kind"]
            )
        if message.name == "failed":
            raise CellCrashed(
                one_line(
                    f"The worker failed: {message.fields['kind']}: {message.fields['message']}."
                ),
                log=self.log(),
            )
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
        return endings.died(code, self.log_text())


def _context_fields(pair: Pair, shape: BatchShape) -> dict[str, Any]:
    return {
        "type_k": pair.k,
        "type_v": pair.v,
        "ctx": shape.ctx,
        "sequences": shape.sequences,
        "batch": min(shape.batch, shape.ctx * shape.sequences),
        "ubatch": shape.ubatch,
        "threads": shape.threads,
    }
