"""Files that llama.cpp takes with a scale: known to both sides."""

from __future__ import annotations


def with_scale(word: str) -> tuple[str, float]:
    """``FILE`` or ``FILE:SCALE``.

    >>> with_scale("a.gguf"), with_scale("a.gguf:0.5"), with_scale("c:a.gguf")
    (('a.gguf', 1.0), ('a.gguf', 0.5), ('c:a.gguf', 1.0))
    """
    path, colon, scale = word.rpartition(":")
    try:
        return (path, float(scale)) if colon else (word, 1.0)
    except ValueError:
        return word, 1.0
