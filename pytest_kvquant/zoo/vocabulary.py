"""A byte-level BPE vocabulary that any text goes through."""

from __future__ import annotations

from typing import NamedTuple

CONTROL, NORMAL, UNUSED = 3, 1, 5
"""Token types of GGUF."""

END = 0
"""The token for both ends of a text."""


class Vocabulary(NamedTuple):
    """Tokens with their types, and merges."""

    tokens: list[str]
    types: list[int]
    merges: list[str]


def byte_letters() -> list[str]:
    """The 256 letters that stand for bytes in GPT-2's vocabularies, in byte order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(rest)) for byte in range(256)]


def bytes_only(size: int) -> Vocabulary:
    """Bytes, one merge (llama.cpp refuses an empty list), and unused entries up to ``size``."""
    letters = byte_letters()
    merges = [f"{letters[0x20]} {letters[ord('t')]}"]
    words = ["<|endoftext|>", *letters, *(merge.replace(" ", "") for merge in merges)]
    if size < len(words):
        raise ValueError(f"a vocabulary of {size}: bytes, an end and a merge need {len(words)}")
    filler = [f"<|unused{number}|>" for number in range(size - len(words))]
    types = [CONTROL, *[NORMAL] * (len(words) - 1), *[UNUSED] * len(filler)]
    return Vocabulary([*words, *filler], types, merges)
