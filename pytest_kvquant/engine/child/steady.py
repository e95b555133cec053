"""Child side: what stays in memory when tokens are decoded and contexts are made and freed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.keep import memory_left
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.messages.cell import MemoryRead, ReadMemory
from pytest_kvquant.engine.protocol import Channel, Message
from pytest_kvquant.engine.sequences import from_start

BLOCKS = 5
"""Blocks of single tokens; memory is read after each."""

BLOCK = 8
"""Tokens of a block."""

CONTEXTS = 5
"""Contexts made and freed; memory is read after each."""

PAUSES = 4
"""Times that memory is read again with nothing done in between."""


class SteadyMessages:
    """The part of the worker that answers ``steady``."""

    channel: Channel
    library: LoadedLibrary
    model: LoadedModel

    def on_steady(self, message: Message) -> None:
        """Decode one token at a time, then make and free contexts; say the memory in between.

        The open context stays as it is.
        """
        asked = message.read(ReadMemory)
        decode, begun = [], time.perf_counter()
        with self._decoded(asked) as context:
            for block in range(BLOCKS):
                self._singles(context, 1 + block * BLOCK)
                decode.append(memory_left(self.library))
        contexts = []
        for _ in range(CONTEXTS):
            with self._decoded(asked):
                pass
            contexts.append(memory_left(self.library))
        pause = (time.perf_counter() - begun) / (BLOCKS + CONTEXTS)
        idle = self._left_alone(pause) if _gpu_moves(decode) or _gpu_moves(contexts) else []
        self.channel.tell(MemoryRead(decode=decode, contexts=contexts, tokens=BLOCK, idle=idle))

    def _left_alone(self, pause: float) -> list[dict[str, int]]:
        """What others do to the memory of a GPU, which all of its processes share."""
        seen = [memory_left(self.library)]
        for _ in range(PAUSES):
            time.sleep(pause)
            seen.append(memory_left(self.library))
        return seen

    @contextmanager
    def _decoded(self, shape: ReadMemory) -> Iterator[Context]:
        """A context of its own that has decoded one token."""
        context = Context(self.model, **shape.shape)
        try:
            none = np.zeros(1, np.int32)
            context.decode(from_start(none, self.model.bos), none, none, none + 1)
            yield context
        finally:
            context.close()

    def _singles(self, context: Context, start: int) -> None:
        none = np.zeros(1, np.int32)
        for position in range(start, start + BLOCK):
            context.decode(none, none + position, none, none + 1)


def _gpu_moves(readings: Sequence[Mapping[str, int]]) -> bool:
    """Whether what a GPU has left was not the same at every reading but the first."""
    return any(
        one[name] != two[name]
        for one, two in pairwise(readings[1:])
        for name in one
        if name != "host"
    )
