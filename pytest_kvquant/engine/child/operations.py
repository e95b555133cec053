"""Child side: plays a scenario of cache operations on one context, step by step.

Steps are plain data, named as llama.cpp's functions are:

    ["decode", spans, label]         one ``llama_decode``; a span is [sequence, position, tokens,
                                     outputs]: logits of its last ``outputs`` tokens go to ``label``
    ["seq_rm", sequence, first, last], ["seq_keep", sequence],
    ["seq_cp", source, target, first, last], ["seq_add", sequence, first, last, delta],
    ["seq_div", sequence, first, last, by], ["clear"]
    ["save", key, sequence], ["restore", key, sequence]
                                     state of a sequence, of the whole context where it is -1
    ["save_file", key, sequence], ["restore_file", key, sequence]
    ["reopen", cells]                another context, of so many cells per sequence
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from pytest_kvquant.engine import census
from pytest_kvquant.engine.child.mirror import Saved
from pytest_kvquant.engine.child.watch import Watched
from pytest_kvquant.engine.messages.cell import Span, Step
from pytest_kvquant.numerics.arrays import F32, U8

if TYPE_CHECKING:
    from pytest_kvquant.engine.child.llama import Bytes

WATCHED_TOKENS = 80
"""Batches of more tokens are not judged: they fill the cache."""


class Unsupported(Exception):
    """The library says that it cannot do what a step asks for."""


class StepFailed(Exception):
    """The library did not do what it was asked for."""


class Stage:
    """A context on which steps are played.

    Args:
        make: makes a context of so many cells per sequence.
        announce: told the number of each step before it is played: a crash is that step's.
    """

    def __init__(
        self, make: Callable[[int], Watched], cells: int, announce: Callable[[int], None]
    ) -> None:
        self._make, self._announce = make, announce
        self.context = make(cells)
        self._saved: dict[str, U8] = {}
        self._mirrored: dict[str, Mapping[int, Saved]] = {}
        """What each layer has of a saved state."""
        self._folder: TemporaryDirectory[str] | None = None
        self._outputs: dict[str, list[F32]] = {}

    @property
    def outputs(self) -> dict[str, F32]:
        """Logits by label, in the order in which they were made."""
        return {label: np.concatenate(rows) for label, rows in self._outputs.items()}

    def play(self, steps: Sequence[Step]) -> None:
        """Play all steps in order.

        Raises:
            Unsupported: the library says that it cannot.
            StepFailed: it does not do what it should.
        """
        for number, (name, *arguments) in enumerate(steps):
            self._announce(number)
            getattr(self, f"_{name}")(*arguments)

    def close(self) -> None:
        """Free the context."""
        self.context.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _decode(self, spans: Sequence[Span], label: str) -> None:
        context = self.context
        tokens, positions, sequences, flags = [], [], [], []
        for sequence, position, words, wanted in spans:
            span = np.arange(len(words), dtype=np.int32)
            tokens.append(np.array(words, np.int32))
            positions.append(position + span)
            sequences.append(np.full(len(words), sequence, np.int32))
            flags.append(span >= len(words) - wanted)
        flat = np.concatenate(tokens)
        context.watch(len(flat) <= WATCHED_TOKENS)
        rows = context.decode(
            flat, np.concatenate(positions), np.concatenate(sequences), np.concatenate(flags)
        )
        if len(rows):
            self._outputs.setdefault(label, []).append(rows.copy())

    def _clear(self) -> None:
        self.context.clear()

    def _seq_rm(self, sequence: int, first: int, last: int) -> None:
        context = self.context
        if not context.llama.llama_memory_seq_rm(context.memory, sequence, first, last):
            raise Unsupported(f"llama_memory_seq_rm({sequence}, {first}, {last}) says no")
        context.mirrors.tell("remove", sequence, first, last)

    def _seq_keep(self, sequence: int) -> None:
        self.context.llama.llama_memory_seq_keep(self.context.memory, sequence)
        self.context.mirrors.tell("keep", sequence)

    def _seq_cp(self, source: int, target: int, first: int, last: int) -> None:
        self.context.llama.llama_memory_seq_cp(self.context.memory, source, target, first, last)
        self.context.mirrors.tell("copy", source, target, first, last)

    def _seq_add(self, sequence: int, first: int, last: int, delta: int) -> None:
        self._require_shift()
        self.context.llama.llama_memory_seq_add(self.context.memory, sequence, first, last, delta)
        self.context.mirrors.tell("shift", sequence, first, last, delta)

    def _seq_div(self, sequence: int, first: int, last: int, by: int) -> None:
        self._require_shift()
        self.context.llama.llama_memory_seq_div(self.context.memory, sequence, first, last, by)
        self.context.mirrors.tell("divide", sequence, first, last, by)

    def _require_shift(self) -> None:
        if not self.context.llama.llama_memory_can_shift(self.context.memory):
            raise Unsupported("llama_memory_can_shift says no")

    def _save(self, key: str, sequence: int) -> None:
        context = self.context
        self._mirrored[key] = context.mirrors.saved(sequence)
        if sequence >= 0:
            self._keep(key, census.sequence_state(context.llama, context.pointer, sequence))
            return
        size = int(context.llama.llama_state_get_size(context.pointer))
        state = np.empty(size, np.uint8)
        taken = context.llama.llama_state_get_data(context.pointer, _bytes(state), size)
        self._keep(key, state[:taken])

    def _keep(self, key: str, state: U8) -> None:
        if not len(state):
            raise StepFailed("It wrote nothing.")
        self._saved[key] = state

    def _restore(self, key: str, sequence: int) -> None:
        context, state = self.context, self._saved[key]
        if sequence >= 0:
            taken = context.llama.llama_state_seq_set_data(
                context.pointer, _bytes(state), len(state), sequence
            )
        else:
            taken = context.llama.llama_state_set_data(context.pointer, _bytes(state), len(state))
        if taken != len(state):
            raise StepFailed(f"llama.cpp took {taken} of {len(state)} bytes of a saved state.")
        context.mirrors.restore(self._mirrored[key], sequence)

    def _save_file(self, key: str, sequence: int) -> None:
        context = self.context
        empty = (ctypes.c_int32 * 1)()
        if not context.llama.llama_state_seq_save_file(
            context.pointer, self._path(key), sequence, empty, 0
        ):
            raise StepFailed("It says that it failed.")
        self._mirrored[key] = context.mirrors.saved(sequence)

    def _restore_file(self, key: str, sequence: int) -> None:
        context = self.context
        room, count = (ctypes.c_int32 * 1)(), ctypes.c_size_t()
        if not context.llama.llama_state_seq_load_file(
            context.pointer, self._path(key), sequence, room, 1, ctypes.byref(count)
        ):
            raise StepFailed("It says that it failed.")
        context.mirrors.restore(self._mirrored[key], sequence)

    def _reopen(self, cells: int) -> None:
        context = self._make(cells)
        context.oracle.ledger, old = self.context.oracle.ledger, self.context
        context.oracle.unknown.update(old.oracle.unknown)
        old.close()
        self.context = context

    def _path(self, key: str) -> bytes:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="pytest-kvquant-")
        return str(Path(self._folder.name) / key).encode()


def _bytes(state: U8) -> Bytes:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
