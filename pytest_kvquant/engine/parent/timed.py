"""Parent side of the timing and of the search for the largest context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_kvquant.engine.messages.model import LimitMemory, MemoryLimited
from pytest_kvquant.engine.messages.rates import MeasureRates, RatesMeasured
from pytest_kvquant.engine.messages.timing import (
    AtStream,
    ContextTried,
    ExtendStreams,
    OpenStreams,
    Profile,
    SamplesTaken,
    StreamsExtended,
    StreamsOpened,
    TakeSamples,
    TryContext,
    WarmedUp,
    WarmUp,
)
from pytest_kvquant.engine.parent.process import read_answer
from pytest_kvquant.engine.parent.worker import Worker
from pytest_kvquant.engine.protocol import Message
from pytest_kvquant.matrix import Pair
from pytest_kvquant.numerics.roof import MachineRates


class TimedWorker(Worker):
    """A worker that times prefill and decode; streams are numbered in the order of ``pairs``.

    Methods raise :class:`CellError` as those of :class:`Worker` do.
    """

    library_ns = 0
    """Time inside library calls, as of the last samples."""

    at: int | None = None
    """The stream that it works on, or died of; ``None``: none, or several by turns."""

    profile: Profile = {}  # noqa: RUF012  (replaced, never changed)
    """By kind: depth, and nanoseconds of a token of each stream, as of the last way up."""

    def __enter__(self) -> TimedWorker:
        return self

    def _receive(self) -> Message:
        message = super()._receive()
        if message.name == AtStream.NAME:
            self.at = read_answer(message, AtStream).number
        return message

    def open_streams(
        self,
        pairs: Sequence[Pair],
        *,
        at_once: Mapping[str, int],
        ctx: int,
        batch: int,
        ubatch: int,
        threads: int,
    ) -> StreamsOpened:
        """Make a context per pair, in this order; what they are, in ``llama-bench``'s words."""
        asked = OpenStreams(
            pairs=[(pair.k, pair.v) for pair in pairs],
            at_once=at_once,
            ctx=ctx,
            batch=batch,
            ubatch=ubatch,
            threads=threads,
        )
        return self.exchange(asked, StreamsOpened)

    def extend_to(self, depth: int, streams: Sequence[int]) -> list[int]:
        """Extend these streams to ``depth``; tokens prefilled so far, of every stream."""
        found = self.exchange(ExtendStreams(depth=depth, streams=list(streams)), StreamsExtended)
        self.profile = found.profile
        return list(found.prefilled)

    def warm(self, kind: str, count: int, seconds: float, streams: Sequence[int]) -> WarmedUp:
        """Warm up; what will make a sample of the test, of each stream."""
        asked = WarmUp(kind=kind, count=count, seconds=seconds, streams=list(streams))
        return self.exchange(asked, WarmedUp)

    def samples(self, kind: str, count: int, order: Sequence[int]) -> list[int]:
        """Nanoseconds per test, a sample for each stream in ``order``; see ``timing.Bench``."""
        asked = TakeSamples(kind=kind, count=count, order=list(order))
        found = self.exchange(asked, SamplesTaken)
        self.library_ns = found.library_ns
        return list(found.samples)

    def rates(self, device: str | None, size: int, threads: int) -> MachineRates | None:
        """What the machine does at most; ``None`` where that could not be measured.

        Args:
            device: that computes, by ggml's name; ``None``: the CPU.
            size: bytes to read.
            threads: of the CPU.
        """
        asked = MeasureRates(device=device, size=size, threads=threads)
        found = self.exchange(asked, RatesMeasured)
        return MachineRates(found.read, found.multiply) if found.read > 0 else None

    def limit_memory(self, size: int) -> bool:
        """Let the worker allocate at most ``size`` bytes; whether its system enforces that."""
        return self.exchange(LimitMemory(size=size), MemoryLimited).enforced

    def try_context(self, pair: Pair, *, ctx: int, batch: int, ubatch: int, threads: int) -> int:
        """Fill a context of ``ctx`` tokens and decode a batch at its end; by how many sequences."""
        asked = TryContext(
            type_k=pair.k, type_v=pair.v, ctx=ctx, batch=batch, ubatch=ubatch, threads=threads
        )
        return self.exchange(asked, ContextTried).sequences
