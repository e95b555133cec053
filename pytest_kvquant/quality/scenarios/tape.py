"""A scenario of cache operations, recorded as steps that a worker plays.

Each sequence reads its own stretch of the text. The tape knows where the next token of a sequence
goes; after positions have been moved it goes behind the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from pytest_kvquant.engine.messages.cell import Span, Step
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.numerics.arrays import I32

FILL = 64
"""Tokens of a batch that only fills."""


class Tape:
    """Records what is done to one context.

    Args:
        tokens: the text.
        cells: per sequence, as the context is made.
        window: tokens of the model's sliding window; 0: none.
        bos: token that every sequence starts with; ``None``: no such token.
    """

    def __init__(self, tokens: I32, *, cells: int, window: int = 0, bos: int | None = None) -> None:
        self._tokens, self.cells, self.window, self._bos = tokens, cells, window, bos
        self.steps: list[Step] = []
        self.equal: list[tuple[str, str]] = []
        """Labels whose logits should be the same."""
        self.left = ""
        """Why it is not played on this model; empty: it is."""
        self._next: dict[int, int] = {}
        self._read: dict[int, int] = {}
        self._text: dict[int, int] = {}

    def leave(self, why: str) -> None:
        """Do not play it on this model."""
        self.left = why

    def fill(self, sequence: int, count: int) -> None:
        """Decode the next tokens of a sequence, in batches, without looking at logits."""
        for start in range(0, count, FILL):
            self._span({sequence: min(FILL, count - start)}, 0, "")

    def score(self, sequence: int, count: int, label: str = "end") -> None:
        """Decode the next tokens at once; their logits are compared."""
        self._span({sequence: count}, count, label)

    def each(self, sequence: int, count: int, label: str = "end") -> None:
        """Decode the next tokens one at a time; their logits are compared."""
        for _ in range(count):
            self.score(sequence, 1, label)

    def together(self, counts: dict[int, int], label: str = "", *, of: int | None = None) -> None:
        """Decode tokens of several sequences in one batch.

        Args:
            counts: how many of each.
            label: where the logits of sequence ``of`` go; empty: nowhere.
        """
        spans = [self._take(one, n, n if one == of and label else 0) for one, n in counts.items()]
        self.steps.append(["decode", spans, label])

    def read_like(self, sequence: int, other: int) -> None:
        """From now on a sequence reads the text where another one would go on."""
        self._text[sequence] = self._start(other)
        self._read[sequence] = self._read.get(other, 0)

    def rewind(self, sequence: int, position: int) -> None:
        """The next tokens go to ``position`` on, and are those that stood there at first."""
        self._read[sequence] = self._read.get(sequence, 0) - (self._at(sequence) - position)
        self._next[sequence] = position

    def clear(self) -> None:
        """``llama_memory_clear``; all sequences start anew."""
        self.steps.append(["clear"])
        self._next.clear()
        self._read.clear()

    def seq_rm(self, sequence: int, first: int, last: int = -1) -> None:
        """``llama_memory_seq_rm``: forget positions ``first`` to ``last`` (excluded)."""
        self.steps.append(["seq_rm", sequence, first, last])
        if last < 0:
            self._next[sequence] = min(self._at(sequence), max(first, 0))

    def seq_keep(self, sequence: int) -> None:
        """``llama_memory_seq_keep``: forget all other sequences."""
        self.steps.append(["seq_keep", sequence])
        for other in [one for one in self._next if one != sequence]:
            self._next[other] = self._read[other] = 0

    def seq_cp(self, source: int, target: int, first: int = -1, last: int = -1) -> None:
        """``llama_memory_seq_cp``; the copy goes on with the same text."""
        self.steps.append(["seq_cp", source, target, first, last])
        self.read_like(target, source)
        self._next[target] = self._at(source) if last < 0 else last

    def seq_add(self, sequence: int, first: int, last: int, delta: int) -> None:
        """``llama_memory_seq_add``: move positions; a context shift is a removal and this."""
        self.steps.append(["seq_add", sequence, first, last, delta])
        if last < 0 or last >= self._at(sequence):
            self._next[sequence] = self._at(sequence) + delta

    def seq_div(self, sequence: int, first: int, last: int, by: int) -> None:
        """``llama_memory_seq_div``: divide positions."""
        self.steps.append(["seq_div", sequence, first, last, by])
        if last < 0 or last >= self._at(sequence):
            self._next[sequence] = (self._at(sequence) - 1) // by + 1

    def save(self, key: str, sequence: int = -1) -> None:
        """Serialize a sequence, or the whole context."""
        self.steps.append(["save", key, sequence])

    def restore(self, key: str, sequence: int = -1) -> None:
        """Put a saved state back, for a sequence under any number."""
        self.steps.append(["restore", key, sequence])

    def save_file(self, key: str, sequence: int) -> None:
        """Write a sequence to a file."""
        self.steps.append(["save_file", key, sequence])

    def restore_file(self, key: str, sequence: int) -> None:
        """Read a sequence from a file."""
        self.steps.append(["restore_file", key, sequence])

    def reopen(self, cells: int) -> None:
        """Make another context, of so many cells per sequence."""
        self.steps.append(["reopen", cells])

    def goes_on(self, sequence: int, position: int, read: int | None = None) -> None:
        """Where a restored sequence goes on."""
        self._next[sequence] = position
        self._read[sequence] = position if read is None else read

    def same(self, one: str, other: str) -> None:
        """The logits of two labels should be equal but for noise."""
        self.equal.append((one, other))

    def _span(self, counts: dict[int, int], outputs: int, label: str) -> None:
        self.steps.append(
            ["decode", [self._take(one, n, outputs) for one, n in counts.items()], label]
        )

    def _at(self, sequence: int) -> int:
        return self._next.get(sequence, 0)

    def _start(self, sequence: int) -> int:
        return self._text.get(sequence, sequence * 131)

    def _take(self, sequence: int, count: int, outputs: int) -> Span:
        position, read = self._at(sequence), self._read.get(sequence, 0)
        where = (self._start(sequence) + read + np.arange(count)) % len(self._tokens)
        taken = self._tokens[where]
        words = (from_start(taken, self._bos) if read == 0 else taken).tolist()
        self._next[sequence], self._read[sequence] = position + count, read + count
        return sequence, position, words, outputs


def spans_of(step: Step) -> Sequence[Span]:
    """The spans of a step that decodes."""
    return cast("Sequence[Span]", step[1])


def in_words(step: Step) -> str:
    """A step as llama.cpp's API calls it."""
    name, arguments = str(step[0]), step[1:]
    if name == "decode":
        counts = ", ".join(
            f"{len(words)} token{'s' * (len(words) > 1)} of sequence {sequence} at {position}"
            for sequence, position, words, _ in spans_of(step)
        )
        return f"llama_decode({counts})"
    if name.startswith("seq_"):
        return f"llama_memory_{name}({', '.join(map(str, arguments))})"
    whole = step[-1] == -1
    return {
        "clear": "llama_memory_clear",
        "reopen": "llama_init_from_model",
        "save": "llama_state_get_data" if whole else "llama_state_seq_get_data",
        "restore": "llama_state_set_data" if whole else "llama_state_seq_set_data",
        "save_file": "llama_state_seq_save_file",
        "restore_file": "llama_state_seq_load_file",
    }[name]
