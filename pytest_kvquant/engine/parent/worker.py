"""Parent side: everything that a worker can be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.census_record import Census, from_data
from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.parent.process import WorkerProcess
from pytest_kvquant.matrix import REFERENCE, Pair


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


class Worker(WorkerProcess):
    """A worker by what it answers.

    Every method raises :class:`CellError` or a subclass of it when the worker dies, falls silent
    or refuses; the message says which in words, ``.log`` carries the end of the library's log.
    """

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
