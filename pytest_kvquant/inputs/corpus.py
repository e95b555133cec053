"""Text → tokens → chunks in a recorded order."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pytest_kvquant.errors import CorpusError
from pytest_kvquant.numerics.arrays import I32


class Corpus(NamedTuple):
    """A text to evaluate on."""

    path: Path
    name: str
    text: bytes
    fingerprint: str
    """SHA-256 of the text, 16 hex digits."""
    special: bool = False
    """Whether the words of a chat template's markers are their tokens."""
    remark: str = ""
    """How it was made, where that is not the usual way."""


def read_corpus(path: Path) -> Corpus:
    """Read a UTF-8 text.

    Raises:
        CorpusError: missing, unreadable, empty, or not UTF-8.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CorpusError(f"The corpus {path} {what}; give a text file with --kv-corpus.")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"The corpus {path} cannot be read: {error.strerror}.") from None
    if not text.strip():
        raise CorpusError(f"The corpus {path} is empty; give a UTF-8 text with --kv-corpus.")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"The corpus {path} is not UTF-8 (byte {error.start} is {text[error.start]:#04x}); "
            "convert it, with iconv for example."
        ) from None
    return Corpus(path, path.stem, text, hashlib.sha256(text).hexdigest()[:16])


def cut_chunks(
    tokens: I32, *, ctx: int, wanted: int, exact: bool, order: str, seed: int, name: str
) -> tuple[I32, I32]:
    """Cut a token stream into equal chunks and put them in the order in which they are drawn.

    Args:
        tokens: the whole corpus, shape ``(n,)``.
        wanted: most chunks to draw; with ``exact`` fewer are an error.
        order: ``sequential`` or ``shuffled`` (a permutation of all chunks, by ``seed``).

    Returns:
        Chunks of shape ``(drawn, ctx)`` and their numbers in the corpus, shape ``(drawn,)``.

    Raises:
        CorpusError: too few tokens; the message says how many there are and how many it takes.
    """
    available = len(tokens) // ctx
    needed = wanted if exact else 1
    if available < needed:
        raise CorpusError(
            f"The corpus {name} is too short: it has {len(tokens):,} tokens, and {needed} "
            f"chunk{'s' * (needed > 1)} of {ctx} tokens take {needed * ctx:,}. Use a longer text, "
            "or lower --kv-ctx or --kv-chunks."
        )
    numbers = np.arange(available, dtype=np.int32)
    if order == "shuffled":
        numbers = np.random.Generator(np.random.PCG64(seed)).permutation(numbers)
    numbers = numbers[:wanted]
    return tokens[: available * ctx].reshape(available, ctx)[numbers], numbers
