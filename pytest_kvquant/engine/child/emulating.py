"""Child side: the worker's messages about what types must cost: emulation, and the quantizer."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.child.callback import Callback
from pytest_kvquant.engine.child.codec import Codec, Codecs
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.healthy import CachePlace, Learner, Rounder, SideStored
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.messages.cell import (
    Opened,
    OpenHealthy,
    Quantize,
    Quantized,
    StoredTold,
    TellStored,
)
from pytest_kvquant.engine.messages.context import ContextShape
from pytest_kvquant.engine.protocol import Channel, Message
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.numerics.arrays import F32, I32, U8


class WatchedContext(Context):
    """A context whose nodes a callback is shown; what went wrong there is raised by the decode."""

    def __init__(self, model: LoadedModel, callback: Callback, shape: ContextShape) -> None:
        super().__init__(model, **shape.shape, prepare=callback.attach)
        self._callback = callback

    def decode(
        self, tokens: I32, positions: I32, sequences: I32, outputs: npt.NDArray[np.generic]
    ) -> F32:
        """As :meth:`Context.decode`.

        Raises:
            BadLibrary: a node is not what the callback understands.
        """
        logits = super().decode(tokens, positions, sequences, outputs)
        self._callback.check()
        return logits


class EmulationMessages:
    """Mixed into the worker: what a cell of some types stores, and an f16 that rounds like it."""

    channel: Channel
    library: LoadedLibrary
    codecs: Codecs
    model: LoadedModel
    context: Context | None

    def on_stored(self, message: Message) -> None:
        """How a context of the cell's types stores its rows."""
        learner = Learner(self.library)
        context = WatchedContext(self.model, learner, message.read(TellStored))
        none = np.zeros(1, np.int32)
        context.decode(from_start(none, self.model.bos), none, none, none)
        context.close()
        found = [(*place, *how) for place, how in learner.stored.items()]
        self.channel.tell(StoredTold(places=found))

    def on_open_healthy(self, message: Message) -> None:
        """Make an ``f16/f16`` context whose rows are rounded as those of a cell."""
        asked = message.read(OpenHealthy)
        stored = {CachePlace(*row[:2]): SideStored(*row[2:]) for row in asked.places}
        rounder = Rounder(self.library, self.codecs, stored, dict(asked.heads), asked.draw)
        if self.context is not None:
            self.context.close()
        self.context = WatchedContext(self.model, rounder, asked)
        self.channel.tell(Opened(batch=self.context.batch, ubatch=self.context.ubatch))

    def on_quantizer(self, message: Message) -> None:
        """Rows of the payload (float32) through a type's reference quantizer and back."""
        asked = message.read(Quantize)
        codec = self.codecs[asked.type]
        rows = np.frombuffer(message.payload, np.float32).reshape(-1, asked.elements)
        stored = codec.quantize(rows)
        other = quantized_by_row(self.library, codec, rows)
        equal = float((stored == other).mean())
        self.channel.tell(
            Quantized(block=codec.block, bytes=codec.bytes, equal=equal),
            codec.floats(stored).tobytes(),
        )


def quantized_by_row(library: LoadedLibrary, codec: Codec, rows: F32) -> U8:
    """Rows as ``ggml_quantize_chunk`` writes them, shape ``(rows, row bytes)``."""
    if codec.block == 1:
        return codec.quantize(rows)
    count, size = ctypes.c_int64, ctypes.c_size_t
    quantize = library.function(
        "ggml_quantize_chunk", size, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        count, count, count, ctypes.c_void_p,
    )  # fmt: skip
    source = np.ascontiguousarray(rows, np.float32)
    out = np.zeros((len(rows), rows.shape[1] // codec.block * codec.bytes), np.uint8)
    number = library.types[codec.name]["id"]
    quantize(number, source.ctypes.data, out.ctypes.data, 0, len(rows), rows.shape[1], None)
    return out
