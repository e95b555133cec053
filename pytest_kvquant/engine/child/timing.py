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
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine.census import read, sequence_state
from pytest_kvquant.engine.child.context import Context, DecodeFailed, LoadedModel
from pytest_kvquant.engine.child.vocabulary import Refused
from pytest_kvquant.engine.protocol import Channel, Message
from pytest_kvquant.engine.sequences import from_start

I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

WARM_UP = 4
"""Samples of a shape thrown away; fewer where they would take longer than as many good ones."""

LONGEST = 4
"""Times the wanted length that a sample may take to repeat as often as the other stream's."""

SEQUENCE = 0

STEP = 512
"""Tokens between two depths at which a sweep is timed on its way up."""

FEWEST = 6
"""Steps of a sweep from which on it is timed: fewer tell nothing."""

SINGLES = 2
"""Tokens of a look at decode on the way up."""


class Stream:
    """One context, its depth, and the time of tests at that depth."""

    def __init__(self, context: Context, alive: Callable[[], None]) -> None:
        self.context, self.llama, self._alive = context, context.llama, alive
        self.depth = 0
        self.prefilled = 0
        """Tokens decoded to reach the depths so far."""
        self.library_ns = 0
        """Time inside library calls."""
        self._state: U8 | None = None
        self._lowest = -1
        self.restores = not context.model.keeps_all
        """Whether removing the end of a sequence would leave another memory than before."""

    def types(self) -> list[tuple[str, str | None]]:
        """K and V type of each layer; empty where the state is not readable."""
        self._decode_all(self._tokens(1, 0))
        state = sequence_state(self.llama, self.context.pointer, SEQUENCE)
        self._back()
        found = read(state, self.context.model.library.types)
        return [(layer.k_type, layer.v_type) for cache in found.caches for layer in cache.layers]

    def extend_to(self, depth: int) -> None:
        """Extend the cache to ``depth`` tokens.

        Raises:
            DecodeFailed: llama.cpp does not decode them.
            Refused: the cache does not hold what was put into it.
        """
        with self._counted():
            while self.depth < depth:
                size = min(self.context.batch, depth - self.depth)
                self._decode_all(self._tokens(size, self.depth))
                self._synchronize()
                self.context.check_device()
                self.depth += size
                self.prefilled += size
                self._alive()
            if depth and self.restores:
                self._state = sequence_state(self.llama, self.context.pointer, SEQUENCE)
                self._back()  # what a window has passed is not in the state: start all samples so
            if depth:
                self._lowest = self._end(lowest=True)
        self._check()

    def warm(self, kind: str, count: int, seconds: float) -> int:
        """Throw samples away; how many repetitions make one of ``seconds``.

        The very first repetition does not count: it may load weights and compile kernels. Of the
        others the fastest tells, because one that other work on the machine held up would make
        all samples too short.
        """
        self.once(kind, count)
        wanted, spent, fastest, repeats = seconds * 1e9, 0, math.inf, 1
        for _ in range(WARM_UP):
            for _ in range(repeats):
                nanoseconds = max(1, self.once(kind, count))
                spent += nanoseconds
                fastest = min(fastest, nanoseconds)
            repeats = max(1, math.ceil(wanted / fastest))
            if spent >= WARM_UP * wanted:
                break
        return repeats

    def once(self, kind: str, count: int) -> int:
        """Nanoseconds of one ``pp``/``tg`` test of ``count`` tokens.

        Raises:
            DecodeFailed: llama.cpp does not decode them.
            Refused: the cache cannot be brought back to its depth.
        """
        self._check()
        tokens = self._tokens(count, self.depth)
        parts = self._parts(tokens, self.context.batch if kind == "pp" else 1)
        begun = time.perf_counter_ns()
        for part in parts:
            self._decode(part)
            if kind == "tg":
                self._synchronize()
        self._synchronize()
        nanoseconds = time.perf_counter_ns() - begun
        self.context.check_device()
        self.library_ns += nanoseconds
        with self._counted():
            self._back()
        self._alive()
        return nanoseconds

    def prove_alive(self) -> None:
        """One more token, untimed, where a device other than the CPU computes.

        Raises:
            DecodeFailed: the device failed unseen, and the last samples are worth nothing.
        """
        if self.context.model.library.has_gpu:
            self._decode_all(self._tokens(1, self.depth))
            self._synchronize()
            self.context.check_device()
            self._back()

    def _parts(self, tokens: I32, size: int) -> list[Any]:
        """The tokens as ``llama_batch`` structs of at most ``size``, which point into them."""
        pointer = ctypes.POINTER(self.llama.llama_token)
        pieces = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        return [
            self.llama.llama_batch_get_one(piece.ctypes.data_as(pointer), len(piece))
            for piece in pieces
        ]

    def _decode_all(self, tokens: I32) -> None:
        (batch,) = self._parts(tokens, len(tokens))
        self._decode(batch)

    def _decode(self, batch: Any) -> None:
        if code := self.llama.llama_decode(self.context.pointer, batch):
            raise DecodeFailed(
                f"llama_decode failed with code {code} on {batch.n_tokens} tokens at depth "
                f"{self.depth}"
            )

    def _synchronize(self) -> None:
        self.llama.llama_synchronize(self.context.pointer)

    def _back(self) -> None:
        llama, memory = self.llama, self.context.memory
        if self.depth == 0:
            llama.llama_memory_clear(memory, False)
        elif self._state is not None:
            size = self._state.size
            pointer = self._state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
            llama.llama_memory_clear(memory, False)
            if not llama.llama_state_seq_set_data(self.context.pointer, pointer, size, SEQUENCE):
                raise Refused(f"llama.cpp does not restore the state saved at depth {self.depth}")
        elif not llama.llama_memory_seq_rm(memory, SEQUENCE, self.depth, -1):
            raise Refused(f"llama.cpp does not roll the cache back to depth {self.depth}")

    def _check(self) -> None:
        last, lowest = self._end(), self._end(lowest=True)
        if last != self.depth - 1 or (self.depth and lowest != self._lowest):
            raise Refused(
                f"the cache holds positions {lowest} to {last} where {self._lowest} to "
                f"{self.depth - 1} were expected: this is not depth {self.depth}"
            )

    def _end(self, *, lowest: bool = False) -> int:
        ask = self.llama.llama_memory_seq_pos_min if lowest else self.llama.llama_memory_seq_pos_max
        return int(ask(self.context.memory, SEQUENCE))

    def _tokens(self, count: int, at: int) -> I32:
        model = self.context.model
        tokens = np.random.default_rng(at).integers(0, model.vocabulary, count, dtype=np.int32)
        return from_start(tokens, model.bos) if at == 0 else tokens

    @contextmanager
    def _counted(self) -> Iterator[None]:
        begun = time.perf_counter_ns()
        yield
        self.library_ns += time.perf_counter_ns() - begun


class Bench:
    """Streams side by side in one process, made in the order given: the cell's comes first.

    Args:
        pairs: K and V type names, a stream each.
        ctx: tokens that each cache can hold.

    Raises:
        Refused: the library does not make one of the contexts.
    """

    def __init__(
        self,
        model: LoadedModel,
        pairs: Sequence[tuple[str, str]],
        *,
        ctx: int,
        batch: int,
        ubatch: int,
        threads: int,
        alive: Callable[[], None],
    ) -> None:
        self._model = model
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

    def describe(self) -> dict[str, Any]:
        """The cell's types and rollback; what ``llama-bench`` says of a model, under its names."""
        llama, pointer = self._model.llama, self._model.pointer
        text = ctypes.create_string_buffer(128)
        llama.llama_model_desc(pointer, text, len(text))
        return {
            "types": self.streams[0].types(),
            "model_type": text.value.decode(errors="replace"),
            "model_size": int(llama.llama_model_size(pointer)),
            "model_n_params": int(llama.llama_model_n_params(pointer)),
            "rollback": "restore" if self.streams[0].restores else "remove",
        }

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
        looks = [(at, self.streams[at].once("tg", SINGLES)) for at in (*own, *reversed(own))]
        return [min(ns for at, ns in looks if at == one) / SINGLES for one in own]

    def warm(self, kind: str, count: int, seconds: float) -> list[int]:
        """Warm every stream up; repetitions that make a sample, per stream.

        As many for all as for the one that needs most, so that they can alternate; a stream that is
        many times slower repeats less, or a cliff would cost as many times more.
        """
        own = [stream.warm(kind, count, seconds) for stream in self.streams]
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
            spent[place] += self.streams[order[place]].once(kind, count)
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
        """Make the contexts. Fields: ``pairs`` and the shape of :class:`Bench`."""
        fields = dict(message.fields)
        self.bench = Bench(self.model, fields.pop("pairs"), alive=self._still_here, **fields)
        self.channel.send("time_open", **self.bench.describe())

    def on_time_extend(self, message: Message) -> None:
        """Extend the caches to ``depth``."""
        with self.channel.spent("decode"):
            prefilled = self.bench.extend_to(message.fields["depth"])
        self.channel.send("time_extend", prefilled=prefilled, profile=self.bench.profile)

    def on_time_warm(self, message: Message) -> None:
        """Warm up ``kind`` with ``count`` tokens; samples of ``seconds`` from now on."""
        with self.channel.spent("decode"):
            repeats = self.bench.warm(**message.fields)
        self.channel.send("time_warm", repeats=repeats)

    def on_time_samples(self, message: Message) -> None:
        """Take samples of ``kind`` with ``count`` tokens on the streams in ``order``."""
        with self.channel.spent("decode"):
            samples = self.bench.samples(**message.fields)
        self.channel.send("time_samples", samples=samples, library_ns=self.bench.library_ns)

    def _still_here(self) -> None:
        """Says so once a second at most: a message between two samples is work beside them."""
        if (now := time.monotonic()) - self._told > 1:
            self._told = now
            self.channel.send("alive")
