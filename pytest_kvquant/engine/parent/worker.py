"""Parent side: everything that a worker can be asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.census_record import Census
from pytest_kvquant.engine.messages.cell import (
    CensusTaken,
    FreeSlot,
    ListOperations,
    MemoryRead,
    OpenContext,
    Opened,
    OpenHealthy,
    OperationsListed,
    PlayScript,
    Quantize,
    Quantized,
    ReadMemory,
    RowsReady,
    Score,
    ScoringDone,
    ScriptDone,
    Step,
    Stop,
    StoredTold,
    TakeCensus,
    TellStored,
)
from pytest_kvquant.engine.messages.context import ContextFields
from pytest_kvquant.engine.messages.model import (
    Detokenize,
    Done,
    LibraryLoaded,
    LoadLibrary,
    LoadModel,
    ModelLoaded,
    Tokenize,
)
from pytest_kvquant.engine.messages.probe import (
    CellEmulated,
    EmulateCell,
    Probe,
    Probed,
    ProbeReference,
    SideSpec,
)
from pytest_kvquant.engine.options import words
from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.engine.parent.process import WorkerProcess, read_answer
from pytest_kvquant.engine.parent.rows import (
    LogitsBlock,
    QuantizedRows,
    StoredSide,
    emulated_ubatch,
)
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.operations import OperationRecord


class Worker(WorkerProcess):
    """A worker by what it answers.

    Every method raises :class:`CellError` or a subclass of it when the worker dies, falls silent
    or refuses; the message says which in words, ``.log`` carries the end of the library's log.
    """

    def library(self, directory: str | None, *, full: bool = False) -> Mapping[str, object]:
        """Load the library; with ``full`` its identity comes back."""
        asked = LoadLibrary(directory=directory, full=full, servers=words(self._setup, "rpc"))
        return self.exchange(asked, LibraryLoaded).identity

    def model(self, path: str, *, gpu_layers: int, vocabulary_only: bool = False) -> ModelLoaded:
        """Load the model, or its vocabulary only."""
        asked = LoadModel(
            path=path,
            gpu_layers=gpu_layers,
            device=self._device,
            vocabulary_only=vocabulary_only,
            setup=self._setup,
        )
        return self.exchange(asked, ModelLoaded)

    def tokenize(self, text: bytes, *, special: bool = False) -> npt.NDArray[np.int32]:
        """Tokens of a UTF-8 text, shape ``(n,)``.

        Args:
            special: whether the words of a chat template's markers are their tokens.
        """
        _, found = self._ask_for_payload(Tokenize(special=special), Done, text)
        return np.frombuffer(found, np.int32)

    def detokenize(self, tokens: npt.NDArray[np.int32]) -> bytes:
        """The text of tokens, UTF-8."""
        sent = tokens.astype(np.int32).tobytes()
        return self._ask_for_payload(Detokenize(), Done, sent)[1]

    def open(self, pair: Pair, shape: BatchShape) -> Opened:
        """Make the context of a cell."""
        self._pair = pair
        return self.exchange(OpenContext(**_context_fields(pair, shape)), Opened)

    def stored(self, pair: Pair, shape: BatchShape) -> list[StoredSide]:
        """How a small context of a pair stores each side of each layer; the open one stays."""
        fields = _context_fields(pair, msgspec.structs.replace(shape, sequences=1))
        found = self.exchange(TellStored(**fields), StoredTold)
        return [StoredSide(*row) for row in found.places]

    def open_healthy(
        self,
        sides: Sequence[StoredSide],
        heads: Mapping[int, int],
        shape: BatchShape,
        draw: int = 0,
    ) -> None:
        """Make an ``f16/f16`` context whose rows are rounded as those of a cell.

        Args:
            sides: as :meth:`stored` tells of the cell's build.
            heads: KV heads by layer.
            draw: another rounding that is as likely; 0: the build's own.
        """
        self._pair = REFERENCE
        small = msgspec.structs.replace(shape, ubatch=emulated_ubatch(sides, shape.ubatch))
        asked = OpenHealthy(
            **_context_fields(REFERENCE, small),
            places=sides,
            heads=list(heads.items()),
            draw=draw,
        )
        self.exchange(asked, Opened)

    def quantizer(self, name: str, rows: npt.NDArray[np.float32]) -> QuantizedRows:
        """Rows of shape ``(rows, elements)`` through a type's reference quantizer and back."""
        sent = np.ascontiguousarray(rows, np.float32)
        asked = Quantize(type=name, elements=sent.shape[1])
        found, payload = self._ask_for_payload(asked, Quantized, sent.tobytes())
        back = np.frombuffer(payload, np.float32).reshape(sent.shape)
        return QuantizedRows(back, found.block, found.bytes, found.equal)

    def steady(self, pair: Pair, shape: BatchShape) -> MemoryRead:
        """Bytes left by device after blocks of tokens and after contexts."""
        return self.exchange(ReadMemory(**_context_fields(pair, shape)), MemoryRead)

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
        ring = self._share(vocabulary)
        asked = Score(ctx=shape.ctx, scored=shape.scored, sequences=shape.sequences, first=first)
        self._tell(asked, chunks.astype(np.int32).tobytes())
        rows_seen, stopped = 0, False
        while (message := self._receive()).name != ScoringDone.NAME:
            if message.name != RowsReady.NAME:
                continue
            ready = read_answer(message, RowsReady)
            if not stopped:
                logits = ring.slot(ready.slot)[: ready.rows]
                yield LogitsBlock(ready.chunk, ready.first, logits)
            self._tell(FreeSlot(slot=ready.slot))
            rows_seen += ready.rows
            complete, partial = divmod(rows_seen, shape.scored)
            if not partial and not stopped and enough(complete):
                stopped = True
                self._tell(Stop())
        self.decode_seconds += read_answer(message, ScoringDone).decode_ns / 1e9

    def census(self) -> Census:
        """What the cache of the opened cell holds."""
        return self.exchange(TakeCensus(), CensusTaken).census

    def operations(self, pair: Pair, *, threads: int) -> tuple[OperationRecord, ...]:
        """Which operations of a pair run on which device, by path, from a small context of it.

        See :func:`pytest_kvquant.engine.child.op_census.take`.
        """
        asked = ListOperations(type_k=pair.k, type_v=pair.v, threads=threads)
        paths = self.exchange(asked, OperationsListed).paths
        return tuple(
            OperationRecord(path=path, **dataclasses.asdict(one))
            for path, found in paths.items()
            for one in found
        )

    def run_script(self, steps: Sequence[Step], vocabulary: int) -> Iterator[LogitsBlock]:
        """Logits of a script of cache operations, in order; ``chunk`` is the step's number.

        Args:
            steps: see :mod:`pytest_kvquant.engine.child.script`.

        Yields:
            Blocks, each valid until the next is asked for. Afterwards ``chosen`` has the tokens
            of each greedy step.
        """
        ring = self._share(vocabulary)
        self._tell(PlayScript(steps=steps))
        while (message := self._receive()).name != ScriptDone.NAME:
            if message.name != RowsReady.NAME:
                continue
            ready = read_answer(message, RowsReady)
            logits = ring.slot(ready.slot)[: ready.rows]
            yield LogitsBlock(ready.chunk, ready.first, logits)
            self._tell(FreeSlot(slot=ready.slot))
        done = read_answer(message, ScriptDone)
        self.chosen = [list(tokens) for tokens in done.chosen]
        self.decode_seconds += done.decode_ns / 1e9

    def probe_reference(
        self, tokens: npt.NDArray[np.int32], folder: Path, singles: Sequence[int]
    ) -> None:
        """Leave in ``folder`` what the open ``f16/f16`` cell stores for some tokens.

        Args:
            singles: for each run, how many of the tokens come one at a time, at the end.
        """
        asked = ProbeReference(folder=str(folder), singles=list(singles))
        self.exchange(asked, Done, tokens.tobytes())

    def probe(
        self,
        tokens: npt.NDArray[np.int32],
        folder: Path,
        singles: Sequence[int],
        widths: Sequence[tuple[int, int]],
    ) -> Probed:
        """Compare the open cell with that."""
        asked = Probe(folder=str(folder), singles=list(singles), widths=list(widths))
        return self.exchange(asked, Probed, tokens.tobytes())

    def emulate_cell(
        self,
        tokens: npt.NDArray[np.int32],
        folder: Path,
        sides: Sequence[SideSpec],
    ) -> CellEmulated:
        """Play a healthy cell on the open ``f16/f16`` one."""
        asked = EmulateCell(folder=str(folder), sides=sides)
        return self.exchange(asked, CellEmulated, tokens.tobytes())


def _context_fields(pair: Pair, shape: BatchShape) -> ContextFields:
    return {
        "type_k": pair.k,
        "type_v": pair.v,
        "ctx": shape.ctx,
        "sequences": shape.sequences,
        "batch": min(shape.batch, shape.ctx * shape.sequences),
        "ubatch": shape.ubatch,
        "threads": shape.threads,
    }
