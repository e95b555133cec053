"""Child side: prefill and decode speed at a depth, as ``llama-bench`` means them.

``pp512 @ d65536`` is the time of 512 more tokens in batches of ``n_batch``, synchronized at the
end, on a cache that holds 65,536; ``tg128 @ d65536`` is 128 tokens one at a time, each
synchronized. Only the last token of a batch gives logits. Tokens are random: speed does not
depend on them.

A stream is one context that only ever ascends. After each sample it goes back to its depth: by
removing what lies above where the memory allows that, else by restoring the sequence state saved
there. Either way the positions in the cache are compared with the depth before anything is timed.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence

from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.stream import LONGEST, Stream
from pytest_kvquant.engine.messages.model import Alive
from pytest_kvquant.engine.messages.timing import (
    ExtendStreams,
    OpenStreams,
    SamplesTaken,
    StreamsExtended,
    StreamsOpened,
    TakeSamples,
    WarmedUp,
    WarmUp,
)
from pytest_kvquant.engine.protocol import Channel, Message

STEP = 512
"""Tokens between two depths at which a sweep is timed on its way up."""

FEWEST = 6
"""Steps of a sweep from which on it is timed: fewer tell nothing."""

SINGLES = 2
"""Tokens of a look at decode on the way up."""


class Bench:
    """Streams side by side in one process, made in the order given: the cell's comes first.

    Args:
        pairs: K and V type names, a stream each.
        at_once: as :meth:`Stream.once` takes it, by the name of a test.
        ctx: tokens that each cache can hold.

    Raises:
        Refused: the library does not make one of the contexts.
    """

    def __init__(
        self,
        model: LoadedModel,
        pairs: Sequence[tuple[str, str]],
        *,
        at_once: Mapping[str, int],
        ctx: int,
        batch: int,
        ubatch: int,
        threads: int,
        alive: Callable[[], None],
    ) -> None:
        self._model, self._at_once = model, at_once
        self._repeats: dict[tuple[str, int], list[int]] = {}
        self.profile: dict[str, list[tuple[float, ...]]] = {"pp": [], "tg": []}
        """By kind: depth, and nanoseconds of a token of each stream there."""
        begun = time.perf_counter_ns()
        self.streams = [
            Stream(
                Context(
                    model,
                    type_k=k,
                    type_v=v,
                    ctx=ctx,
                    sequences=1,
                    batch=batch,
                    ubatch=ubatch,
                    threads=threads,
                ),
                alive,
            )
            for k, v in pairs
        ]
        self._opening_ns = time.perf_counter_ns() - begun

    def describe(self) -> StreamsOpened:
        """The cell's types and rollback; what ``llama-bench`` says of a model, under its names."""
        llama, pointer = self._model.llama, self._model.pointer
        text = ctypes.create_string_buffer(128)
        llama.llama_model_desc(pointer, text, len(text))
        return StreamsOpened(
            types=self.streams[0].types(),
            model_type=text.value.decode(errors="replace"),
            model_size=int(llama.llama_model_size(pointer)),
            model_n_params=int(llama.llama_model_n_params(pointer)),
            rollback="restore" if self.streams[0].restores else "remove",
        )

    def extend_to(self, depth: int) -> list[int]:
        """Extend every cache to ``depth``; tokens prefilled so far, per stream.

        A long way up goes in steps, all streams in turn, and each is timed: its prefill, and a few
        single tokens at its end. A memory that has to be saved to be rolled back goes at once.
        """
        start = self.streams[0].depth
        if any(stream.restores for stream in self.streams) or depth - start < FEWEST * STEP:
            self._extend(depth, timed=False)
        else:
            self._singles()  # thrown away: it may load and compile
            self.profile["tg"].append((start, *self._singles()))
            for stop in (*range(start + STEP, depth, STEP), depth):
                self._extend(stop, timed=True)
        return [stream.prefilled for stream in self.streams]

    def _extend(self, stop: int, *, timed: bool) -> None:
        start, spent = self.streams[0].depth, []
        for stream in self.streams:
            before = stream.library_ns
            stream.extend_to(stop)
            spent.append((stream.library_ns - before) / (stop - start or 1))
        if timed and stop - start == STEP:
            self.profile["pp"].append((start, *spent))
            self.profile["tg"].append((stop, *self._singles()))

    def _singles(self) -> list[float]:
        """Nanoseconds of a single token of each stream: the faster of two looks, A B B A."""
        own = range(len(self.streams))
        looks = [(at, self.streams[at].once(1, SINGLES)) for at in (*own, *reversed(own))]
        return [min(ns for at, ns in looks if at == one) / SINGLES for one in own]

    def warm(self, kind: str, count: int, seconds: float) -> list[int]:
        """Warm every stream up; repetitions that make a sample, per stream.

        As many for all as for the one that needs most, so that they can alternate; a stream that is
        many times slower repeats less, or a cliff would cost as many times more.
        """
        own = [stream.warm(self._at_once[kind], count, seconds) for stream in self.streams]
        self._repeats[kind, count] = [min(max(own), LONGEST * repeats) for repeats in own]
        return self._repeats[kind, count]

    def samples(self, kind: str, count: int, order: Sequence[int]) -> list[int]:
        """A sample per entry of ``order``, of that stream: mean nanoseconds of its repetitions.

        The repetitions of all of them alternate, A B B A, A B B A, …: what slows the machine for
        less than a sample slows them alike.
        """
        repeats = [self._repeats[kind, count][number] for number in order]
        turns = sorted(
            ((turn + 0.5) / times, place)
            for place, times in enumerate(repeats)
            for turn in range(times)
        )
        spent = [0] * len(order)
        for _, place in turns:
            spent[place] += self.streams[order[place]].once(self._at_once[kind], count)
        for stream in self.streams:
            stream.prove_alive()
        return [round(total / times) for total, times in zip(spent, repeats, strict=True)]

    @property
    def library_ns(self) -> int:
        """Time inside library calls so far, contexts made included."""
        return self._opening_ns + sum(stream.library_ns for stream in self.streams)


class TimingMessages:
    """The part of the worker that answers ``time_…`` messages."""

    channel: Channel
    model: LoadedModel
    bench: Bench
    _told = 0.0

    def on_time_open(self, message: Message) -> None:
        """Make the contexts."""
        asked = message.read(OpenStreams)
        self.bench = Bench(
            self.model,
            asked.pairs,
            at_once=asked.at_once,
            ctx=asked.ctx,
            batch=asked.batch,
            ubatch=asked.ubatch,
            threads=asked.threads,
            alive=self._still_here,
        )
        self.channel.tell(self.bench.describe())

    def on_time_extend(self, message: Message) -> None:
        """Extend the caches to ``depth``."""
        with self.channel.spent("decode"):
            prefilled = self.bench.extend_to(message.read(ExtendStreams).depth)
        self.channel.tell(StreamsExtended(prefilled=prefilled, profile=self.bench.profile))

    def on_time_warm(self, message: Message) -> None:
        """Warm up ``kind`` with ``count`` tokens; samples of ``seconds`` from now on."""
        asked = message.read(WarmUp)
        with self.channel.spent("decode"):
            repeats = self.bench.warm(asked.kind, asked.count, asked.seconds)
        self.channel.tell(WarmedUp(repeats=repeats))

    def on_time_samples(self, message: Message) -> None:
        """Take samples of ``kind`` with ``count`` tokens on the streams in ``order``."""
        asked = message.read(TakeSamples)
        with self.channel.spent("decode"):
            samples = self.bench.samples(asked.kind, asked.count, asked.order)
        self.channel.tell(SamplesTaken(samples=samples, library_ns=self.bench.library_ns))

    def _still_here(self) -> None:
        """Says so once a second at most: a message between two samples is work beside them."""
        if (now := time.monotonic()) - self._told > 1:
            self._told = now
            self.channel.tell(Alive())
