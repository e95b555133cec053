"""The child process: a library, a model, and the contexts that the parent asks for.

Run by the interpreter whose llama-cpp-python fits the library. It answers messages until the
parent hangs up; it never outlives it. Everything the library prints goes to standard error, which
the parent keeps in a file.
"""

from __future__ import annotations

import os
import runpy
import socket
import traceback
from collections.abc import Callable

import numpy as np

from pytest_kvquant.engine import census
from pytest_kvquant.engine.child import op_census, scoring
from pytest_kvquant.engine.child.ceiling import CeilingMessages
from pytest_kvquant.engine.child.codec import Codecs
from pytest_kvquant.engine.child.context import Context, DecodeFailed, LoadedModel
from pytest_kvquant.engine.child.emulating import EmulationMessages
from pytest_kvquant.engine.child.examining import ExaminationMessages
from pytest_kvquant.engine.child.fork import ForkMessages, running_threads
from pytest_kvquant.engine.child.keep import KeepMessages
from pytest_kvquant.engine.child.library import BadLibrary, LoadedLibrary
from pytest_kvquant.engine.child.orphan import end_with
from pytest_kvquant.engine.child.probing import ProbeMessages
from pytest_kvquant.engine.child.rates import RateMessages
from pytest_kvquant.engine.child.rpc import add_servers
from pytest_kvquant.engine.child.script import ScriptRunner
from pytest_kvquant.engine.child.steady import SteadyMessages
from pytest_kvquant.engine.child.timing import TimingMessages
from pytest_kvquant.engine.child.vocabulary import Refused
from pytest_kvquant.engine.messages import cell, model
from pytest_kvquant.engine.protocol import Channel, Closed, Message, Ring
from pytest_kvquant.engine.sequences import from_start

HOOK = "KVQUANT_WORKER_HOOK"
"""A Python file that is run with the worker's modules before the first message: the tests plant
their faults through it. The parent takes it from its configuration alone, records
it and says so."""


FLOW = (cell.FreeSlot.NAME, cell.Stop.NAME)
"""Messages that steer a scoring under way; one that comes late means nothing any more."""


class Child(
    TimingMessages,
    RateMessages,
    CeilingMessages,
    ProbeMessages,
    ExaminationMessages,
    ForkMessages,
    KeepMessages,
    EmulationMessages,
    SteadyMessages,
):
    """Answers one message after another; each ``on_<name>`` method is one message's meaning."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.library: LoadedLibrary
        self.codecs: Codecs
        self.model: LoadedModel
        self.threads = running_threads()
        self._loaded: tuple[str | None, model.LoadModel | None] | None = None
        """What the library and the model were asked for by."""
        self.context: Context | None = None
        self.aside: list[Context | None] = []
        self.ring: Ring | None = None
        self.free: list[int] = []
        self.stopped = False

    def serve(self) -> None:
        """Answer messages until the parent hangs up."""
        while True:
            message = self.channel.receive()
            if self._hear(message) in FLOW:
                continue
            handler: Callable[..., None] = getattr(self, f"on_{message.name}")
            try:
                handler(message)
            except (BadLibrary, Refused, DecodeFailed) as error:
                self.channel.tell(model.Refusal(kind=type(error).__name__, message=str(error)))

    def on_library(self, message: Message) -> None:
        """Load the library and the bindings, if they are not; say what they are."""
        asked = message.read(model.LoadLibrary)
        if self._loaded is None or self._loaded[0] != asked.directory:
            with self.channel.spent("library"):
                self.library = LoadedLibrary(asked.directory, identify=asked.full)
                self.codecs = Codecs(self.library)
                if asked.servers:
                    add_servers(self.library, list(asked.servers))
            self._loaded = asked.directory, None
        with self.channel.spent("library"):
            identity = self.library.identity() if asked.full else {}
        self.channel.tell(model.LibraryLoaded(identity=identity))

    def on_model(self, message: Message) -> None:
        """Load the model, if it is not; say what its vocabulary is like."""
        asked = message.read(model.LoadModel)
        assert self._loaded is not None
        if self._loaded[1] != asked:
            with self.channel.spent("model"):
                self.model = LoadedModel(
                    self.library,
                    asked.path,
                    gpu_layers=asked.gpu_layers,
                    device=asked.device,
                    vocabulary_only=asked.vocabulary_only,
                    setup=asked.setup,
                    keep_alive=self._alive,
                )
            self.model.spans = self.channel.spans
            self._loaded = self._loaded[0], asked
        self.channel.tell(
            model.ModelLoaded(
                vocabulary=self.model.vocabulary,
                bos=self.model.bos,
                template=self.model.chat_template(),
                texts=self.model.marker_texts(),
            )
        )

    def on_tokenize(self, message: Message) -> None:
        """Tokens of the payload (UTF-8 text), as int32; ``special``: markers are one token."""
        tokens = self.model.tokenize(message.payload, special=message.read(model.Tokenize).special)
        self.channel.tell(model.Done(), tokens.tobytes())

    def on_detokenize(self, message: Message) -> None:
        """The text (UTF-8) of the payload's tokens, int32."""
        text = self.model.detokenize(np.frombuffer(message.payload, np.int32))
        self.channel.tell(model.Done(), text)

    def on_open(self, message: Message) -> None:
        """Make the context of the cell, in the place of an earlier one."""
        if self.context is not None:
            self.context.close()
            self.context = None
        with self.channel.spent("context"):
            self.context = Context(self.model, **message.read(cell.OpenContext).shape)
        self.channel.tell(cell.Opened(batch=self.context.batch, ubatch=self.context.ubatch))

    def on_census(self, _message: Message) -> None:
        """Say what the cache holds, layer by layer, read from a short sequence."""
        context, llama = self._open_context(), self.library.llama
        context.clear()
        sizes = []
        for position in range(2):
            none = np.zeros(1, np.int32)
            first = from_start(none, self.model.bos)
            context.decode(first if position == 0 else none, none + position, none, none)
            state = census.sequence_state(llama, context.pointer)
            sizes.append(len(state))
        windowed = llama.llama_model_n_swa(self.model.pointer) > 0
        found = census.read(state, self.library.types, window=windowed)
        if found.problem is not None:
            grown = census.growth((1, 2), (sizes[0], sizes[1]))
            found = found._replace(bytes_per_token=grown)
        self.channel.tell(cell.CensusTaken(census=found))

    def on_operations(self, message: Message) -> None:
        """Say which operations of a cell run where; fields: ``type_k``, ``type_v``, ``threads``."""
        asked = message.read(cell.ListOperations)
        paths = op_census.take(self.model, asked.type_k, asked.type_v, threads=asked.threads)
        self.channel.tell(cell.OperationsListed(paths=paths))

    def on_script(self, message: Message) -> None:
        """Play a script of cache operations; see :mod:`pytest_kvquant.engine.child.script`."""
        context = self._open_context()
        before = context.decode_ns
        runner = ScriptRunner(context, lambda *block: self._hand_over(scoring.Scored(*block)))
        runner.run(message.read(cell.PlayScript).steps)
        context.prove_alive()
        self.channel.tell(
            cell.ScriptDone(chosen=runner.chosen, decode_ns=context.decode_ns - before)
        )

    def on_ring(self, message: Message) -> None:
        """Map the shared memory."""
        asked = message.read(cell.ShareRing)
        self.ring = Ring(self.channel.receive_fd(), asked.slots, asked.rows, asked.vocabulary)
        self.free = list(range(self.ring.slots))

    def on_score(self, message: Message) -> None:
        """Prefill the chunks of the payload and hand their scored logits over."""
        asked = message.read(cell.Score)
        chunks = np.frombuffer(message.payload, np.int32).reshape(-1, asked.ctx)
        self.stopped = False
        context = self._open_context()
        before = context.decode_ns
        done = 0
        while done < len(chunks) and not self._told_to_stop():
            group = chunks[done : done + asked.sequences]
            for block in scoring.score_group(context, group, asked.first + done, asked.scored):
                self._hand_over(block)
            done += len(group)
        self.channel.tell(cell.ScoringDone(chunks=done, decode_ns=context.decode_ns - before))

    def _open_context(self) -> Context:
        assert self.context is not None
        return self.context

    def _hand_over(self, block: scoring.Scored) -> None:
        ring = self.ring
        assert ring is not None
        for start in range(0, len(block.logits), ring.rows):
            rows = block.logits[start : start + ring.rows]
            slot = self._free_slot()
            with self.channel.spent("transfer"):
                np.copyto(ring.slot(slot)[: len(rows)], rows)
            self.channel.tell(
                cell.RowsReady(
                    slot=slot, chunk=block.chunk, first=block.first + start, rows=len(rows)
                )
            )

    def _free_slot(self) -> int:
        while not self.free:
            self._hear(self.channel.receive())
        return self.free.pop()

    def _told_to_stop(self) -> bool:
        while not self.stopped and self.channel.pending():
            self._hear(self.channel.receive())
        return self.stopped

    def _hear(self, message: Message) -> str:
        if message.name == cell.FreeSlot.NAME:
            self.free.append(message.read(cell.FreeSlot).slot)
        elif message.name == cell.Stop.NAME:
            self.stopped = True
        return message.name

    def _alive(self) -> None:
        self.channel.tell(model.Alive())


def main(line: int, spans: list[tuple[str, int, int]]) -> None:
    """Answer on the inherited socket ``line``; ``spans`` is what was done until now."""
    end_with(line)
    worker = Child(Channel(socket.socket(fileno=line)))
    worker.channel.spans += spans
    try:
        if hook := os.environ.get(HOOK):
            runpy.run_path(hook, {"worker": worker})
        worker.serve()
    except Closed:
        pass
    except Exception as error:  # told to the parent in words; the traceback goes to the log
        traceback.print_exc()
        worker.channel.tell(model.WorkerFailed(kind=type(error).__name__, message=str(error)))
