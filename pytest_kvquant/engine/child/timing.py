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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.stream import LONGEST, Stream
from pytest_kvquant.engine.messages.model import Alive
from pytest_kvquant.engine.messages.timing import (
    AtStream,
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
    """Streams side by side in one process, made in the order given: f16's comes last.

    Args:
        pairs: K and V type names, a stream each.
        at_once: as :meth:`Stream.once` takes it, by the name of a test.
        ctx: tokens that each cache can hold.
        at: told which stream is worked on, ``None``: several by turns, so that it is known whose
            work it was if the process dies of it.

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
        at: Callable[[int | None], None],
    ) -> None:
        self._model, self._at_once, self._at = model, at_once, at
        self._repeats: dict[tuple[str, int, int], int] = {}
        """Of a test, its tokens and a stream."""
        self._parts: dict[tuple[str, int], int] = {}
        """Of a test and its tokens."""
        self.profile: dict[str, list[tuple[float, ...]]] = {"pp": [], "tg": []}
        """By kind: depth, and nanoseconds of a token of each stream there; 0: it stayed behind."""
        begun = time.perf_counter_ns()
        self.streams: list[Stream] = []
        for number, (k, v) in enumerate(pairs):
            at(number)
            context = Context(
                model,
                type_k=k,
                type_v=v,
                ctx=ctx,
                sequences=1,
                batch=batch,
                ubatch=ubatch,
                threads=threads,
            )
            self.streams.append(Stream(context, alive))
        self._opening_ns = time.perf_counter_ns() - begun

    def describe(self) -> StreamsOpened:
        """Types and rollback; what ``llama-bench`` says of a model, under its names."""
        llama, pointer = self._model.llama, self._model.pointer
        text = ctypes.create_string_buffer(128)
        llama.llama_model_desc(pointer, text, len(text))
        return StreamsOpened(
            types=[stream.types() for stream in self._each(range(len(self.streams)))],
            model_type=text.value.decode(errors="replace"),
            model_size=int(llama.llama_model_size(pointer)),
            model_n_params=int(llama.llama_model_n_params(pointer)),
            rollback="restore" if self.streams[0].restores else "remove",
        )

    def extend_to(self, depth: int, numbers: Sequence[int]) -> list[int]:
        """Extend caches to ``depth``; tokens prefilled so far, of every stream.

        Args:
            numbers: of the streams that go on, all at the same depth now.

        A long way up goes in steps, all streams in turn, and each is timed: its prefill, and a few
        single tokens at its end. A memory that has to be saved to be rolled back goes at once.
        """
        going = [self.streams[number] for number in numbers]
        for stream in self._each(numbers):
            stream.start_over()
        start = min((stream.depth for stream in going), default=depth)
        if any(stream.restores for stream in going) or depth - start < FEWEST * STEP:
            self._extend(numbers, depth, timed=False)
        else:
            for stream in self._each(numbers):
                stream.once(1, SINGLES)  # thrown away: it may load and compile
            self._note("tg", start, self._singles(numbers))
            for stop in (*range(start + STEP, depth, STEP), depth):
                self._extend(numbers, stop, timed=True)
        return [stream.prefilled for stream in self.streams]

    def _extend(self, numbers: Sequence[int], stop: int, *, timed: bool) -> None:
        start, spent = stop, dict[int, float]()
        for number, stream in zip(numbers, self._each(numbers), strict=True):
            start, before = stream.depth, stream.library_ns
            stream.extend_to(stop)
            spent[number] = (stream.library_ns - before) / (stop - start or 1)
        if timed and stop - start == STEP:
            self._note("pp", start, spent)
            self._note("tg", stop, self._singles(numbers))

    def _note(self, kind: str, depth: int, spent: Mapping[int, float]) -> None:
        every = range(len(self.streams))
        self.profile[kind].append((depth, *(spent.get(number, 0.0) for number in every)))

    def _singles(self, numbers: Sequence[int]) -> dict[int, float]:
        """Nanoseconds of a single token of each stream: the faster of two looks, A B B A."""
        self._at(None)
        looks = [(at, self.streams[at].once(1, SINGLES)) for at in (*numbers, *reversed(numbers))]
        return {one: min(ns for at, ns in looks if at == one) / SINGLES for one in numbers}

    def warm(self, kind: str, count: int, seconds: float, numbers: Sequence[int]) -> WarmedUp:
        """Warm streams up; what makes a sample, of each.

        As many repetitions for all as for the one that needs most, so that they can alternate; a
        stream that is many times slower repeats less, or a cliff would cost as many times more.
        A test that is much longer than a sample has to be is taken in parts, the same of all
        streams; one alone has none beside it to hold a part against.
        """
        at_once = self._at_once[kind]
        own = [stream.warm(at_once, count, seconds) for stream in self._each(numbers)]
        most = max(one.repeats for one in own)
        found = [min(most, LONGEST * one.repeats) for one in own]
        self._repeats |= {
            (kind, count, number): repeats for number, repeats in zip(numbers, found, strict=True)
        }
        parts = min(one.parts for one in own) if len(own) > 1 else 1
        self._parts[kind, count] = parts
        return WarmedUp(repeats=found, parts=parts)

    def samples(self, kind: str, count: int, order: Sequence[int]) -> list[int]:
        """A sample per entry of ``order``, of that stream: mean nanoseconds of its repetitions.

        Of a test in parts it is the stream's next part, counted up to the whole. The repetitions
        of all of them alternate, A B B A, A B B A, …: what slows the machine for less than a
        sample slows them alike.
        """
        repeats = [self._repeats[kind, count, number] for number in order]
        at_once, parts = self._at_once[kind], self._parts[kind, count]
        turns = sorted(
            ((turn + 0.5) / times, place)
            for place, times in enumerate(repeats)
            for turn in range(times)
        )
        spent = [0] * len(order)
        self._at(None)
        for _, place in turns:
            spent[place] += parts * self.streams[order[place]].once(at_once, count, parts)
        for stream in self._each(sorted({*order})):
            stream.prove_alive()
        return [round(total / times) for total, times in zip(spent, repeats, strict=True)]

    def _each(self, numbers: Iterable[int]) -> Iterator[Stream]:
        """Streams, one after another; each is told when its work begins."""
        for number in numbers:
            self._at(number)
            yield self.streams[number]

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
            at=lambda number: self.channel.tell(AtStream(number=number)),
        )
        self.channel.tell(self.bench.describe())

    def on_time_extend(self, message: Message) -> None:
        """Extend caches to a depth."""
        asked = message.read(ExtendStreams)
        with self.channel.spent("decode"):
            prefilled = self.bench.extend_to(asked.depth, asked.streams)
        self.channel.tell(StreamsExtended(prefilled=prefilled, profile=self.bench.profile))

    def on_time_warm(self, message: Message) -> None:
        """Warm up ``kind`` with ``count`` tokens; samples of ``seconds`` from now on."""
        asked = message.read(WarmUp)
        with self.channel.spent("decode"):
            warmed = self.bench.warm(asked.kind, asked.count, asked.seconds, asked.streams)
        self.channel.tell(warmed)

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
