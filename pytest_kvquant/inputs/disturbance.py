"""Text as people really type it: the same words with typing errors, other case, doubled spaces."""

from __future__ import annotations

import random
from collections.abc import Callable

RATE = 0.05
"""Share of words that are touched, but for case."""


def typing_errors(text: str, rng: random.Random) -> str:
    """In one word of twenty, two neighbouring letters change places or one is left out."""
    return _words(text, rng, _mistyped)


def case(text: str, rng: random.Random) -> str:
    """Every sentence in lower case, one word of twenty in capitals."""
    return _words(text.lower(), rng, lambda word, _: word.upper())


def doubled_spaces(text: str, rng: random.Random) -> str:
    """One space of ten is two."""
    return "".join(sign * 2 if sign == " " and rng.random() < 2 * RATE else sign for sign in text)


DISTURBANCES: dict[str, Callable[[str, random.Random], str]] = {
    "typing errors": typing_errors,
    "case": case,
    "doubled spaces": doubled_spaces,
}


def _words(text: str, rng: random.Random, change: Callable[[str, random.Random], str]) -> str:
    return " ".join(
        change(word, rng) if len(word) > 3 and rng.random() < RATE else word
        for word in text.split(" ")
    )


def _mistyped(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    if rng.random() < 0.5:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :]
