"""Child side: plays a script of cache operations, so that the parent can compose any path.

Steps are plain data:

    ["clear"]                        forget every sequence
    ["decode", spans]                one ``llama_decode``; a span is [sequence, position, tokens,
                                     outputs]: logits are wanted at its last ``outputs`` tokens
    ["each", sequence, position, tokens]
                                     the tokens one at a time, logits at every one: the decode path
    ["greedy", sequence, position, tokens, count]
                                     decode the tokens, then ``count`` times the likeliest next
    ["write", prompts, count, temperature, seed]
                                     from an empty cache, a sequence per prompt: ``count`` tokens
                                     drawn one after another, no end of text and no control token;
                                     temperature 0 takes the likeliest
    ["save", sequence], ["restore", sequence]
                                     serialize a sequence; put what was saved back
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pytest_kvquant.engine import census
from pytest_kvquant.engine.child.context import Context
from pytest_kvquant.engine.child.vocabulary import Refused
from pytest_kvquant.engine.messages.cell import Span, Step
from pytest_kvquant.numerics.arrays import F32, I32


class ScriptRunner:
    """Plays steps on a context.

    Args:
        hand_over: takes each block of logits out of the library's buffer, with the number of the
            step that made it and the number of its first row within that step.
    """

    def __init__(self, context: Context, hand_over: Callable[[int, int, F32], None]) -> None:
        self._context, self._hand_over = context, hand_over
        self._saved: dict[int, npt.NDArray[np.uint8]] = {}
        self.chosen: list[list[int]] = []
        """Tokens that each ``greedy`` step chose."""

    def run(self, steps: Sequence[Step]) -> None:
        """Play all steps in order."""
        for number, (name, *arguments) in enumerate(steps):
            getattr(self, f"_{name}")(number, *arguments)

    def _clear(self, _number: int) -> None:
        self._context.clear()

    def _decode(self, number: int, spans: Sequence[Span]) -> None:
        tokens, positions, sequences, outputs = [], [], [], []
        for sequence, position, words, wanted in spans:
            span = np.arange(len(words), dtype=np.int32)
            tokens.append(np.array(words, np.int32))
            positions.append(position + span)
            sequences.append(np.full(len(words), sequence, np.int32))
            outputs.append(span >= len(words) - wanted)
        logits = self._context.decode(
            np.concatenate(tokens),
            np.concatenate(positions),
            np.concatenate(sequences),
            np.concatenate(outputs),
        )
        self._hand_over(number, 0, logits)

    def _each(self, number: int, sequence: int, position: int, tokens: list[int]) -> None:
        rows = np.empty((len(tokens), self._context.model.vocabulary), np.float32)
        for row, token in enumerate(tokens):
            rows[row] = self._one(token, position + row, sequence)
        self._hand_over(number, 0, rows)

    def _greedy(
        self, _number: int, sequence: int, position: int, tokens: list[int], count: int
    ) -> None:
        self._decode_quietly(tokens[:-1], position, sequence)
        position += len(tokens) - 1
        token, chosen = tokens[-1], []
        for _ in range(count):
            token = int(self._one(token, position, sequence)[0].argmax())
            position += 1
            chosen.append(token)
        self.chosen.append(chosen)

    def _write(
        self, _number: int, prompts: list[list[int]], count: int, temperature: float, seed: int
    ) -> None:
        context, sequences = self._context, np.arange(len(prompts), dtype=np.int32)
        context.clear()
        for sequence, prompt in enumerate(prompts):
            self._decode_quietly(prompt[:-1], 0, sequence)
        random = np.random.Generator(np.random.PCG64(seed))
        silenced = self._context.model.control_tokens()
        tokens = np.array([prompt[-1] for prompt in prompts], np.int32)
        at = np.array([len(prompt) - 1 for prompt in prompts], np.int32)
        written = np.empty((len(prompts), count), np.int32)
        for column in range(count):
            logits = context.decode(tokens, at + column, sequences, np.ones(len(prompts), np.bool_))
            tokens = _drawn(logits, silenced, temperature, random)
            written[:, column] = tokens
            if column % 16 == 0:
                context.model.say_alive()
        self.chosen += written.tolist()

    def _save(self, _number: int, sequence: int) -> None:
        context = self._context
        self._saved[sequence] = census.sequence_state(context.llama, context.pointer, sequence)

    def _restore(self, _number: int, sequence: int) -> None:
        context, state = self._context, self._saved.pop(sequence)
        buffer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        taken = context.llama.llama_state_seq_set_data(
            context.pointer, buffer, len(state), sequence
        )
        if taken != len(state):
            raise Refused(f"llama.cpp took {taken} of {len(state)} bytes of a saved sequence")

    def _one(self, token: int, position: int, sequence: int) -> F32:
        one = np.ones(1, np.int32)
        return self._context.decode(token * one, position * one, sequence * one, one)

    def _decode_quietly(self, tokens: list[int], position: int, sequence: int) -> None:
        if tokens:
            span = np.arange(len(tokens), dtype=np.int32)
            self._context.decode(
                np.array(tokens, np.int32),
                position + span,
                np.full(len(tokens), sequence, np.int32),
                np.zeros(len(tokens), np.bool_),
            )


def _drawn(logits: F32, silenced: I32, temperature: float, random: np.random.Generator) -> I32:
    """A token per row, ``softmax(logits / temperature)`` by the Gumbel-max trick; never one of
    ``silenced``."""
    scores = logits.astype(np.float64)
    if temperature > 0:
        scores = scores / temperature + random.gumbel(size=scores.shape)
    scores[:, silenced] = -np.inf
    found: I32 = scores.argmax(axis=1).astype(np.int32)
    return found
