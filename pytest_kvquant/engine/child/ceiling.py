"""Child side: does a context of this size really work, in this much memory?

Making a context allocates the cache; whether its last rows can be used shows only when something
is decoded there. Prefilling a long context to its end would take hours, so where the memory allows
it one short sequence is prefilled and its state is put back under other ids until the cache is full
but for one batch; the batch is then decoded behind them all: the attention kernels walk the whole
cache.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import platform
import resource
from collections.abc import Callable

import numpy as np

from pytest_kvquant.engine.census import sequence_state
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.child.vocabulary import Refused
from pytest_kvquant.engine.messages.model import Alive, LimitMemory, MemoryLimited
from pytest_kvquant.engine.messages.timing import ContextTried, TryContext
from pytest_kvquant.engine.protocol import Channel, Message
from pytest_kvquant.engine.sequences import from_start

SEQUENCES = 64
"""Most sequences that every llama.cpp can hold."""


def limit_memory(size: int) -> bool:
    """Let this process allocate at most ``size`` bytes; whether the system enforces that.

    Linux counts private memory (``RLIMIT_DATA``), which leaves memory-mapped weights out. macOS
    has no limit that it keeps.
    """
    if platform.system() != "Linux":
        return False
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    return True


def try_context(
    model: LoadedModel,
    type_k: str,
    type_v: str,
    *,
    ctx: int,
    batch: int,
    ubatch: int,
    threads: int,
    alive: Callable[[], None],
) -> int:
    """Make a context of ``ctx`` tokens, fill it, and decode a batch at its end.

    Recurrent layers and windows take memory per sequence, more than a user of one has to have: such
    models are prefilled to the end. Caches that keep all tokens take the same however many
    sequences share them.

    Args:
        alive: told after each batch, and each state put back.

    Returns:
        The number of sequences that filled it.

    Raises:
        Refused: llama.cpp does not make it, or does not take the filling.
        DecodeFailed: it does not decode at its end.
    """
    sequences = math.gcd(ctx, SEQUENCES) if model.keeps_all else 1
    while sequences > min(batch, ubatch):  # a graph of one token for each of them must fit
        sequences //= 2
    context = Context(
        model,
        type_k=type_k,
        type_v=type_v,
        ctx=ctx // sequences,
        sequences=sequences,
        batch=batch,
        ubatch=ubatch,
        threads=threads,
        unified=True,
    )
    own = (ctx - min(context.ubatch, ctx)) // sequences
    _prefill(context, 0, own, alive)
    if own:
        _put_back(context, own, sequences, alive)
    _prefill(context, own, own + ctx - own * sequences, alive)
    context.prove_alive()
    return sequences


def _prefill(context: Context, start: int, end: int, alive: Callable[[], None]) -> None:
    """Tokens of sequence 0 from position ``start`` on; the last batch is a whole one."""
    for stop in reversed(range(end, start, -context.ubatch)):
        first = max(start, stop - context.ubatch)
        _decode(context, first, stop - first)
        alive()


def _put_back(context: Context, own: int, sequences: int, alive: Callable[[], None]) -> None:
    """The ``own`` tokens of sequence 0 also as those of the others."""
    if sequences == 1:
        return
    state = sequence_state(context.llama, context.pointer, 0)
    data = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    for number in range(1, sequences):
        if not context.llama.llama_state_seq_set_data(context.pointer, data, len(state), number):
            raise Refused(f"llama.cpp does not fill the cache beyond {number * own:,} tokens")
        alive()


def _decode(context: Context, start: int, count: int) -> None:
    """``count`` tokens of sequence 0 from position ``start``; logits of the last one."""
    positions = np.arange(start, start + count, dtype=np.int32)
    outputs = positions == start + count - 1
    tokens = positions % context.model.vocabulary
    if start == 0:
        tokens = from_start(tokens, context.model.bos)
    logits = context.decode(tokens, positions, np.zeros(count, np.int32), outputs)
    if not np.isfinite(logits).all():
        raise Refused(f"the logits at token {start + count:,} are not finite")


class CeilingMessages:
    """The part of the worker that answers ``limit`` and ``ceiling``."""

    channel: Channel
    library: LoadedLibrary
    model: LoadedModel

    def on_limit(self, message: Message) -> None:
        """Limit this process to ``size`` bytes."""
        enforced = limit_memory(message.read(LimitMemory).size)
        self.channel.tell(MemoryLimited(enforced=enforced))

    def on_ceiling(self, message: Message) -> None:
        """Try a context; fields as :func:`try_context` takes them."""

        def alive() -> None:
            self.channel.tell(Alive())

        asked = dataclasses.asdict(message.read(TryContext))
        sequences = try_context(self.model, alive=alive, **asked)
        self.channel.tell(ContextTried(sequences=sequences))
