"""Cache-type pairs: parsing, the matrix of a run, stable order and ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from pytest_kvquant.errors import SettingsError


class Pair(NamedTuple):
    """One cell of the matrix: K type, V type, both by ggml name."""

    k: str
    v: str

    def __str__(self) -> str:
        return f"{self.k}/{self.v}"

    def matches(self, pattern: str) -> bool:
        """Whether ``pattern`` (``q8_0/*``, ``*/turbo?``, ``f16/f16``) names this pair."""
        wanted = Pair.parse(pattern)
        return fnmatchcase(self.k, wanted.k) and fnmatchcase(self.v, wanted.v)

    @classmethod
    def parse(cls, text: str) -> Pair:
        """Read ``K/V``.

        Raises:
            SettingsError: not two type names with a slash between them.
        """
        k, slash, v = text.partition("/")
        if not (k.strip() and slash and v.strip()) or "/" in v:
            raise SettingsError(
                f"'{text}' is not a pair of cache types: write K/V, for example q8_0/q4_0."
            )
        return cls(k.strip(), v.strip())


REFERENCE = Pair("f16", "f16")
"""The cell that every other one is compared with."""

DEFAULT_TYPES = ("f16", "q8_0", "q5_1", "q4_0")
"""The matrix when nothing is asked for: cache types every llama.cpp build has."""


def plan_pairs(types: Sequence[str], pairs: Sequence[str], skip: Sequence[str]) -> list[Pair]:
    """The cells of a run, in a stable order, ``f16/f16`` first.

    ``pairs`` replaces the product of ``types``; ``skip`` takes cells away by pattern; the
    reference is always a cell, because it is the self-check of the run. A skip pattern is written
    for a whole matrix: beside ``pairs`` it may match nothing.

    Raises:
        SettingsError: a malformed pair, or a skip pattern that matches nothing of the product.
    """
    wanted = [Pair.parse(pair) for pair in pairs] or list(_product(types or DEFAULT_TYPES))
    for pattern in skip:
        if not pairs and not any(pair.matches(pattern) for pair in wanted):
            raise SettingsError(f"--kv-skip {pattern} matches no cell of this run; remove it.")
    kept = [pair for pair in wanted if not any(pair.matches(pattern) for pattern in skip)]
    return list(dict.fromkeys([REFERENCE, *kept]))


def _product(types: Iterable[str]) -> Iterable[Pair]:
    names = list(dict.fromkeys(types))
    return (Pair(k, v) for k in names for v in names)
