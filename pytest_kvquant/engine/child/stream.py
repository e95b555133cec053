"""Child side: one stream of tokens to be timed."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from pytest_kvquant.engine.census import read, sequence_state
from pytest_kvquant.engine.child.context import Context, DecodeFailed
from pytest_kvquant.engine.child.vocabulary import Refused
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.numerics.arrays import I32, U8

WARM_UP = 4
"""Samples of a shape thrown away; fewer where they would take longer than as many good ones."""

LONGEST = 4
"""Times the wanted length that a sample may take to repeat as often as the other stream's."""

PARTS = (8, 4, 2)
"""Into how many a test of single tokens may be taken, most first. Eight: the fewest rounds that
decide are still more than one whole test."""

SEQUENCE = 0


class Warmed(NamedTuple):
    """What makes a sample of a test."""

    repeats: int
    """Whole tests."""
    parts: int
    """Or the test is taken in so many, each as long as a sample has to be."""


class Stream:
    """One context, its depth, and the time of tests at that depth."""

    def __init__(self, context: Context, alive: Callable[[], None]) -> None:
        self.context, self.llama, self._alive = context, context.llama, alive
        self.depth = 0
        self._within = 0
        """Tokens of a test under way that lie above the depth."""
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

    def warm(self, at_once: int, count: int, seconds: float) -> Warmed:
        """Throw samples away, to know how many repetitions make one of ``seconds``.

        The very first repetition does not count: it may load weights and compile kernels. Of the
        others the fastest tells, because one that other work on the machine held up would make
        all samples too short.
        """
        self.start_over()
        self.once(at_once, count)
        wanted, spent, fastest, repeats = seconds * 1e9, 0, math.inf, 1
        for _ in range(WARM_UP):
            for _ in range(repeats):
                nanoseconds = max(1, self.once(at_once, count))
                spent += nanoseconds
                fastest = min(fastest, nanoseconds)
            repeats = max(1, math.ceil(wanted / fastest))
            if spent >= WARM_UP * wanted:
                break
        most = 2 if self.restores else max(PARTS)
        parts = (
            one for one in PARTS
            if at_once and one <= most and count % (one * at_once) == 0 and fastest >= one * wanted
        )  # fmt: skip
        return Warmed(repeats, next(parts, 1))

    def once(self, at_once: int, count: int, parts: int = 1) -> int:
        """Nanoseconds of one test of ``count`` tokens.

        Args:
            at_once: tokens of each ``llama_decode``, synchronized one by one; 0: as many as
                ``n_batch``, synchronized at the end.
            parts: it is taken in; then these are the nanoseconds of the next part.

        Raises:
            DecodeFailed: llama.cpp does not decode them.
            Refused: the cache cannot be brought back to its depth.
        """
        self._check()
        stop = self._within + count // parts
        tokens = self._tokens(count, self.depth)[self._within : stop]
        batches = self._batches(tokens, at_once or self.context.batch)
        begun = time.perf_counter_ns()
        for batch in batches:
            self._decode(batch)
            if at_once:
                self._synchronize()
        self._synchronize()
        nanoseconds = time.perf_counter_ns() - begun
        self.context.check_device()
        self.library_ns += nanoseconds
        self._within = stop
        if stop == count:
            with self._counted():
                self.start_over()
        self._alive()
        return nanoseconds

    def prove_alive(self) -> None:
        """One more token, untimed, where a device other than the CPU computes.

        A memory that has to be saved to be rolled back is asked when its test is whole.

        Raises:
            DecodeFailed: the device failed unseen, and the last samples are worth nothing.
        """
        if not self.context.model.library.has_gpu or (self._within and self.restores):
            return
        end = self.depth + self._within
        self._decode_all(self._tokens(1, end))
        self._synchronize()
        self.context.check_device()
        if self._within:
            self._remove(end)
        else:
            self._back()

    def start_over(self) -> None:
        """Back to the depth, from wherever in a test."""
        if self._within:
            self._back()
            self._within = 0

    def _batches(self, tokens: I32, size: int) -> list[ctypes.Structure]:
        """The tokens as ``llama_batch`` structs of at most ``size``, which point into them."""
        pointer = ctypes.POINTER(self.llama.llama_token)
        pieces = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        return [
            self.llama.llama_batch_get_one(piece.ctypes.data_as(pointer), len(piece))
            for piece in pieces
        ]

    def _decode_all(self, tokens: I32) -> None:
        (batch,) = self._batches(tokens, len(tokens))
        self._decode(batch)

    def _decode(self, batch: ctypes.Structure) -> None:
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
        else:
            self._remove(self.depth)

    def _remove(self, start: int) -> None:
        if not self.llama.llama_memory_seq_rm(self.context.memory, SEQUENCE, start, -1):
            raise Refused(f"llama.cpp does not roll the cache back to depth {start}")

    def _check(self) -> None:
        last, lowest, size = self._end(), self._end(lowest=True), self.depth + self._within
        moves = self._within and self.restores  # a window leaves what it has passed
        if last != size - 1 or (self.depth and lowest != self._lowest and not moves):
            raise Refused(
                f"the cache holds positions {lowest} to {last} where {self._lowest} to "
                f"{size - 1} were expected: this is not depth {size}"
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
